//! The little of ASN.1's distinguished encoding (ITU-T X.690) that a Kerberos message needs.

/// Tag of INTEGER.
pub(super) const INTEGER: u8 = 0x02;
/// Tag of BIT STRING.
pub(super) const BIT_STRING: u8 = 0x03;
/// Tag of SEQUENCE and SEQUENCE OF.
pub(super) const SEQUENCE: u8 = 0x30;
/// Tag of GeneralString.
pub(super) const GENERAL_STRING: u8 = 0x1b;
/// Tag of GeneralizedTime.
pub(super) const GENERALIZED_TIME: u8 = 0x18;

/// Tag of a constructed element in the context of its sequence: `[number]`, up to 30.
pub(super) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// Tag of a constructed application element: `[APPLICATION number]`, up to 30.
pub(super) const fn application(number: u8) -> u8 {
    0x60 | number
}

/// An element: tag, length, content. What is written here is far shorter than 64 KiB.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    let mut bytes = vec![tag];
    match (high, low) {
        (0, 0..=0x7f) => bytes.push(low),
        (0, _) => bytes.extend([0x81, low]),
        (_, _) => bytes.extend([0x82, high, low]),
    }
    bytes.extend(content);
    bytes
}

/// An element of elements.
pub(super) fn constructed(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    element(tag, &parts.concat())
}

/// An INTEGER that is not negative and fits 31 bits.
pub(super) fn integer(number: u32) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let zeros = bytes.iter().take(3).take_while(|byte| **byte == 0).count();
    // The first bit is the sign.
    let begin = if bytes[zeros] & 0x80 != 0 && zeros > 0 {
        zeros - 1
    } else {
        zeros
    };
    element(INTEGER, &bytes[begin..])
}

/// The element at the head, and what follows it; nothing if the bytes end before it does, or if it is longer than 64 KiB.
pub(super) fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&[length], rest) = rest.split_first_chunk()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_as_short_as_can_be_and_never_negative() {
        for (number, content) in [
            (0, vec![0]),
            (5, vec![5]),
            (127, vec![127]),
            (128, vec![0, 128]),
            (256, vec![1, 0]),
            (0x8000, vec![0, 0x80, 0]),
            (0x7fff_ffff, vec![0x7f, 0xff, 0xff, 0xff]),
        ] {
            let bytes = integer(number);
            assert_eq!(split(&bytes), Some((INTEGER, content.as_slice(), &[][..])));
        }
    }

    #[test]
    fn lengths_have_as_many_bytes_as_they_need() {
        for (length, head) in [
            (0, vec![4, 0]),
            (127, vec![4, 127]),
            (128, vec![4, 0x81, 128]),
            (255, vec![4, 0x81, 255]),
            (256, vec![4, 0x82, 1, 0]),
        ] {
            let content = vec![9; length];
            let mut bytes = element(4, &content);
            assert!(bytes.starts_with(&head), "{length}");
            bytes.push(7);
            assert_eq!(split(&bytes), Some((4, content.as_slice(), &[7][..])));
            if length > 0 {
                assert_eq!(split(&bytes[..bytes.len() - 2]), None);
            }
        }
        assert_eq!(split(&[4, 0x80]), None);
        assert_eq!(split(&[4]), None);
    }
}
