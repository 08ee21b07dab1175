//! Whole numbers in as few bytes as they need: seven bits a byte, the last one without its high bit (LEB128). Signed
//! ones change sign from number to number, so that small ones stay small.

/// Appends a number.
pub(super) fn push(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a signed number.
pub(super) fn push_signed(out: &mut Vec<u8>, number: i64) {
    push(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// What is still to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Bytes<'a> {
        Bytes { rest }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes for themselves.
    pub(super) fn take(&mut self, count: usize) -> Option<Bytes<'a>> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(Bytes { rest: taken })
    }

    /// The next number; `None` at the end, or where there is none. Lengths vary from number to number, so that a branch for
    /// each byte is guessed wrong more often than not: eight bytes are looked at together.
    #[inline]
    pub(super) fn number(&mut self) -> Option<u64> {
        if let Some(eight) = self.rest.first_chunk() {
            let eight = u64::from_le_bytes(*eight);
            let ends = !eight & HIGH_BITS;
            if ends != 0 {
                let bits = ends.trailing_zeros() + 1;
                self.rest = &self.rest[bits as usize / 8..];
                return Some(without_high_bits(eight & (u64::MAX >> (64 - bits))));
            }
        }
        self.number_by_bytes()
    }

    /// The same near the end, and for numbers of more than eight bytes.
    #[cold]
    fn number_by_bytes(&mut self) -> Option<u64> {
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

    /// The next two numbers; where the first is zero and `alone_if_zero`, it alone, and zero for the other. Both are mostly
    /// found in the same eight bytes, and the second need not wait for where the first ends.
    #[inline(always)]
    pub(super) fn two(&mut self, alone_if_zero: bool) -> Option<(u64, u64)> {
        if let Some(eight) = self.rest.first_chunk() {
            let eight = u64::from_le_bytes(*eight);
            let ends = !eight & HIGH_BITS;
            let later_ends = ends & ends.wrapping_sub(1);
            if later_ends != 0 {
                let (bits, all_bits) = (ends.trailing_zeros() + 1, later_ends.trailing_zeros() + 1);
                let first = without_high_bits(eight & (u64::MAX >> (64 - bits)));
                let is_alone = alone_if_zero && first == 0;
                let second = without_high_bits((eight & (u64::MAX >> (64 - all_bits))) >> bits);
                self.rest = &self.rest[if is_alone { bits } else { all_bits } as usize / 8..];
                return Some((first, if is_alone { 0 } else { second }));
            }
        }
        let first = self.number()?;
        Some((first, if alone_if_zero && first == 0 { 0 } else { self.number()? }))
    }

    /// Leaves out so many numbers.
    #[inline]
    pub(super) fn skip(&mut self, mut count: u32) -> Option<()> {
        while let Some(eight) = self.rest.first_chunk() {
            let mut ends = !u64::from_le_bytes(*eight) & HIGH_BITS;
            if ends.count_ones() < count {
                count -= ends.count_ones();
                self.rest = &self.rest[8..];
                continue;
            }
            // Without the ends of all but the last of them.
            for _ in 1..count {
                ends &= ends - 1;
            }
            if count > 0 {
                self.rest = &self.rest[(ends.trailing_zeros() as usize + 1) / 8..];
            }
            return Some(());
        }
        for _ in 0..count {
            self.number_by_bytes()?;
        }
        Some(())
    }

    /// The next signed number.
    #[inline]
    pub(super) fn signed(&mut self) -> Option<i64> {
        self.number().map(with_sign)
    }

    /// The same as [`Bytes::two`].
    #[inline(always)]
    pub(super) fn two_signed(&mut self, alone_if_zero: bool) -> Option<(i64, i64)> {
        self.two(alone_if_zero).map(|(first, second)| (with_sign(first), with_sign(second)))
    }

    /// The next eight bytes as a floating-point number.
    pub(super) fn real(&mut self) -> Option<f64> {
        let Bytes { rest } = self.take(8)?;
        Some(f64::from_le_bytes(rest.try_into().ok()?))
    }
}

/// The bit of each byte that says whether more follow.
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

#[inline]
fn with_sign(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Seven bits of each byte, side by side: neighbours are moved together, then pairs, then fours.
#[inline]
fn without_high_bits(eight: u64) -> u64 {
    let sevens = eight & !HIGH_BITS;
    let pairs = (sevens & 0x007F_007F_007F_007F) | ((sevens & 0x7F00_7F00_7F00_7F00) >> 1);
    let fours = (pairs & 0x0000_3FFF_0000_3FFF) | ((pairs & 0x3FFF_0000_3FFF_0000) >> 2);
    (fours & 0x0FFF_FFFF) | ((fours & 0x0FFF_FFFF_0000_0000) >> 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::testing::Random;

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
    fn numbers_of_every_length_are_read_and_left_out_one_after_another() {
        let mut random = Random::new(11);
        for length in 0..60 {
            let numbers: Vec<u64> = (0..length).map(|_| random.below(u64::MAX) >> random.below(64)).collect();
            let mut out = Vec::new();
            numbers.iter().for_each(|number| push(&mut out, *number));
            for skipped in 0..=length {
                let mut bytes = Bytes::new(&out);
                assert_eq!(bytes.skip(skipped as u32), Some(()));
                for number in &numbers[skipped..] {
                    assert_eq!(bytes.number(), Some(*number));
                }
                assert!(bytes.is_empty());
                assert_eq!(bytes.skip(1), None);
            }
        }
    }

    #[test]
    fn two_numbers_are_read_at_once_and_zero_may_stand_alone() {
        let mut random = Random::new(12);
        for _ in 0..2000 {
            let mut number = || if random.below(3) == 0 { 0 } else { random.below(u64::MAX) >> random.below(64) };
            let numbers = [number(), number(), number()];
            let mut out = Vec::new();
            numbers.iter().for_each(|number| push(&mut out, *number));
            let mut bytes = Bytes::new(&out);
            assert_eq!(bytes.two(false), Some((numbers[0], numbers[1])));
            assert_eq!((bytes.number(), bytes.two(false)), (Some(numbers[2]), None));
            let mut bytes = Bytes::new(&out);
            let expected = if numbers[0] == 0 { (0, 0) } else { (numbers[0], numbers[1]) };
            assert_eq!(bytes.two(true), Some(expected));
            assert_eq!(bytes.number(), Some(if numbers[0] == 0 { numbers[1] } else { numbers[2] }));
        }
    }
}
