//! Whole numbers in as few bytes as they need: seven bits a byte, the last one without its high bit (LEB128). Signed
//! ones change sign from number to number, so that small ones stay small.

/// Appends a number.
pub fn push(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a signed number.
pub fn push_signed(out: &mut Vec<u8>, number: i64) {
    push(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// Bytes that are still to be read.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    /// All of these.
    pub fn new(rest: &'a [u8]) -> Bytes<'a> {
        Bytes { rest }
    }

    /// Whether all is read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes for themselves.
    pub fn take(&mut self, count: usize) -> Option<Bytes<'a>> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(Bytes { rest: taken })
    }

    /// The next number; `None` at the end, or where there is none.
    ///
    /// Byte by byte, for most numbers are short and those of neighbours equally so: the branches are guessed right.
    /// Looking at eight bytes together, without a branch for each, took half as long again for a year of packed hours
    /// (64 ms, not 43).
    #[inline]
    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// The next signed number.
    #[inline]
    pub fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// The next bytes as they are.
    pub fn array<const COUNT: usize>(&mut self) -> Option<[u8; COUNT]> {
        let Bytes { rest } = self.take(COUNT)?;
        rest.try_into().ok()
    }

    /// The next eight bytes as a floating-point number.
    pub fn real(&mut self) -> Option<f64> {
        self.array().map(f64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn what_is_written_is_read() {
        for number in [0, 1, 63, 64, 127, 128, 300, 1 << 20, i64::MAX, -1, -64, -65, i64::MIN] {
            let mut out = Vec::new();
            push(&mut out, number as u64);
            push_signed(&mut out, number);
            let mut bytes = Bytes::new(&out);
            assert_eq!((bytes.number(), bytes.signed()), (Some(number as u64), Some(number)));
            assert!(bytes.is_empty());
            assert_eq!(bytes.number(), None);
        }
    }

    #[test]
    fn numbers_of_every_length_are_read_one_after_another() {
        let mut random = Random::new(11);
        for length in 0..60 {
            let numbers: Vec<u64> = (0..length).map(|_| random.below(u64::MAX) >> random.below(64)).collect();
            let mut out = Vec::new();
            numbers.iter().for_each(|number| push(&mut out, *number));
            let mut bytes = Bytes::new(&out);
            for number in numbers {
                assert_eq!(bytes.number(), Some(number));
            }
            assert!(bytes.is_empty());
        }
    }
}
