//! The atomic operations that shared records need. Two CPUs may handle the two directions of one flow
//! at once, so a plain read-modify-write would lose counts.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};

/// Adds to a shared counter.
///
/// # Safety
/// `counter` points to an aligned element of a map.
#[inline(always)]
pub(crate) unsafe fn add(counter: *mut u64, value: u64) {
    // SAFETY: by the caller's word.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, value);
    }
}

/// Takes what is there and leaves nothing.
///
/// # Safety
/// `counter` points to an aligned element of a map.
#[inline(always)]
pub(crate) unsafe fn take(counter: *mut u64) -> u64 {
    // SAFETY: by the caller's word.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(counter, 0) }
}

/// Puts `new` where `old` is, if it still is there; says whether it did.
///
/// # Safety
/// `word` points to an aligned element of a map.
#[inline(always)]
pub(crate) unsafe fn replace(word: *mut u32, old: u32, new: u32) -> bool {
    // SAFETY: by the caller's word.
    let (_, done) = unsafe {
        atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, old, new)
    };
    done
}
