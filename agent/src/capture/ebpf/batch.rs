//! System calls that aya 0.14 has no call for: whole tables in batches (`BPF_MAP_LOOKUP_BATCH` and its
//! kin, Linux 5.6, `linux/bpf.h`), the link type of an interface and the cookie of a network namespace.
//! The only place with pointers to foreign memory.

#![expect(unsafe_code, reason = "system calls; each block says why it is sound")]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};

use aya::Pod;
use aya::maps::MapData;

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;

/// Elements a call: enough that the call's cost vanishes, few enough to stay in the cache.
const BATCH: usize = 4096;

/// The `batch` member of `union bpf_attr`, padded to what every kernel accepts.
#[repr(C)]
#[derive(Default)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

fn bpf(command: libc::c_long, attributes: &mut BatchAttributes) -> io::Result<()> {
    // SAFETY: the attributes are the ones that the batch commands read (`linux/bpf.h`), and their pointers
    // are to buffers that the callers below hold for the duration of the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<BatchAttributes>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn address<T>(buffer: *const T) -> u64 {
    buffer as usize as u64
}

fn descriptor(map: &MapData) -> u32 {
    u32::try_from(map.fd().as_fd().as_raw_fd()).unwrap_or(u32::MAX)
}

/// The bytes of a record.
pub(super) fn bytes_of<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: a `Pod` has no padding (asserted where it is defined) and any byte of it is initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// A record from bytes; nothing if they are too few.
pub(super) fn read_record<T: Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: there are enough bytes and every bit pattern is a valid `Pod`.
    (bytes.len() >= size_of::<T>())
        .then(|| unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// Calls `each` for every element of a hash table. Elements that come or go meanwhile may be missed or seen.
pub(super) fn for_each<K: Pod, V: Pod>(
    map: &MapData,
    mut each: impl FnMut(&K, &V),
) -> io::Result<()> {
    let mut walk = Walk::default();
    while walk.step(map, &mut each)? {}
    Ok(())
}

/// A walk through a hash table, a batch at a time, for those who have other things to do in between.
pub(super) struct Walk<K, V> {
    size: usize,
    keys: Vec<MaybeUninit<K>>,
    values: Vec<MaybeUninit<V>>,
    token: Option<[u8; 64]>,
}

impl<K, V> Default for Walk<K, V> {
    fn default() -> Self {
        Self {
            size: BATCH,
            keys: Vec::new(),
            values: Vec::new(),
            token: None,
        }
    }
}

impl<K: Pod, V: Pod> Walk<K, V> {
    /// Calls `each` for the elements of the next batch; false if that was the last, and the next is the first again.
    pub(super) fn step(&mut self, map: &MapData, mut each: impl FnMut(&K, &V)) -> io::Result<bool> {
        loop {
            self.keys.resize_with(self.size, MaybeUninit::uninit);
            self.values.resize_with(self.size, MaybeUninit::uninit);
            let mut next = [0_u8; 64];
            let mut attributes = BatchAttributes {
                in_batch: self
                    .token
                    .as_ref()
                    .map_or(0, |token| address(token.as_ptr())),
                out_batch: address(next.as_mut_ptr()),
                keys: address(self.keys.as_mut_ptr()),
                values: address(self.values.as_mut_ptr()),
                count: u32::try_from(self.size).unwrap_or(u32::MAX),
                map_fd: descriptor(map),
                ..BatchAttributes::default()
            };
            let result = bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes);
            self.token = match result {
                Ok(()) => Some(next),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    // One bucket holds more than the buffers do.
                    self.size *= 2;
                    continue;
                }
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                Err(error) => {
                    self.token = None;
                    return Err(error);
                }
            };
            let read = attributes.count as usize;
            for (key, value) in self.keys.iter().zip(&self.values).take(read) {
                // SAFETY: the kernel wrote the first `count` keys and values, and every bit pattern is valid.
                unsafe { each(key.assume_init_ref(), value.assume_init_ref()) };
            }
            return Ok(self.token.is_some());
        }
    }
}

/// The first `count` values of an array, in order.
pub(super) fn values<V: Pod>(map: &MapData, count: u32) -> io::Result<Vec<V>> {
    let mut values = Vec::with_capacity(count as usize);
    read_array(map, count, size_of::<V>(), |bytes| {
        values.extend(read_record::<V>(bytes));
    })?;
    Ok(values)
}

/// The first `count` values of an array that each CPU has its own of, in order, each added up over the CPUs.
pub(super) fn per_cpu_sums<V: Pod + Default>(
    map: &MapData,
    count: u32,
    add: impl Fn(V, V) -> V,
) -> io::Result<Vec<V>> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    // The kernel rounds each CPU's value up to 8 bytes.
    let stride = size_of::<V>().next_multiple_of(8);
    let mut values = Vec::with_capacity(count as usize);
    read_array(map, count, stride * cpus, |bytes| {
        let cpus = bytes.chunks_exact(stride).filter_map(read_record::<V>);
        values.push(cpus.fold(V::default(), &add));
    })?;
    Ok(values)
}

fn read_array(
    map: &MapData,
    count: u32,
    value_size: usize,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let step = (1_usize << 20).div_ceil(value_size).clamp(1, BATCH);
    let mut keys = vec![0_u32; step];
    // Words, so that the kernel finds them aligned.
    let mut buffer = vec![0_u64; (step * value_size).div_ceil(8)];
    let mut token: Option<u32> = None;
    let mut read = 0;
    while read < count {
        let mut next = 0_u32;
        let want = u32::try_from(step).unwrap_or(u32::MAX).min(count - read);
        let mut attributes = BatchAttributes {
            in_batch: token
                .as_ref()
                .map_or(0, |token| address(std::ptr::from_ref(token))),
            out_batch: address(std::ptr::from_mut(&mut next)),
            keys: address(keys.as_mut_ptr()),
            values: address(buffer.as_mut_ptr()),
            count: want,
            map_fd: descriptor(map),
            ..BatchAttributes::default()
        };
        match bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
            Err(error) => return Err(error),
        }
        if attributes.count == 0 {
            break;
        }
        // SAFETY: the buffer holds `step` values, all initialised, and bytes have no alignment.
        let bytes =
            unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), step * value_size) };
        for value in bytes
            .chunks_exact(value_size)
            .take(attributes.count as usize)
        {
            each(value);
        }
        read += attributes.count;
        token = Some(next);
    }
    Ok(())
}

/// Writes elements; stops at the first that the kernel refuses.
pub(super) fn update<K: Pod, V: Pod>(map: &MapData, keys: &[K], values: &[V]) -> io::Result<()> {
    for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
        let mut attributes = BatchAttributes {
            keys: address(keys.as_ptr()),
            values: address(values.as_ptr()),
            count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
            map_fd: descriptor(map),
            ..BatchAttributes::default()
        };
        bpf(BPF_MAP_UPDATE_BATCH, &mut attributes)?;
    }
    Ok(())
}

/// Deletes elements; those that are not there are passed over.
pub(super) fn delete<K: Pod>(map: &MapData, keys: &[K]) -> io::Result<()> {
    for chunk in keys.chunks(BATCH) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let mut attributes = BatchAttributes {
                keys: address(rest.as_ptr()),
                count: u32::try_from(rest.len()).unwrap_or(u32::MAX),
                map_fd: descriptor(map),
                ..BatchAttributes::default()
            };
            match bpf(BPF_MAP_DELETE_BATCH, &mut attributes) {
                Ok(()) => break,
                // `count` says how many were deleted before the one that is not there.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    let done = (attributes.count as usize + 1).min(rest.len());
                    rest = &rest[done..];
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// `SO_NETNS_COOKIE` of this thread's network namespace; nothing before Linux 5.14.
pub(super) fn namespace_cookie() -> Option<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    // Any socket tells; one of this family needs no interface to be up.
    let socket = std::os::unix::net::UnixDatagram::unbound().ok()?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).ok()?;
    // SAFETY: the option writes 8 bytes, which is what the buffer and its length say.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (result == 0 && cookie != 0).then_some(cookie)
}

/// The link type of an interface (`SIOCGIFHWADDR`, `linux/if_arp.h`).
pub(super) fn hardware_type(name: &str) -> io::Result<u16> {
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    // SAFETY: an all-zero `ifreq` is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .take(libc::IFNAMSIZ - 1)
        .zip(name.bytes())
    {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // SAFETY: the request has a name that ends in zero, and the kernel writes within it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `SIOCGIFHWADDR` filled in the address, whose family is the link type.
    Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
}
