//! Packs of prefixes: of each series, why prompts were read anew, and what of them. An entry stands for a series and a
//! reason.

use std::collections::BTreeMap;

use super::varint::{Bytes, push, push_signed};
use super::{DamagedPack, visit_entries};

/// How many reasons a series can have at most.
const REASONS: i64 = 16;

/// What the prompts of one series come to that have one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixSums {
    /// Rows.
    pub requests: i64,
    /// Bytes of their prompts.
    pub prompt_bytes: i64,
    /// Those that an earlier prompt began with, too.
    pub shared_bytes: i64,
    /// Milliseconds that reading the others again took, as estimated.
    pub lost_ms: i64,
}

impl PrefixSums {
    /// Adds others, or takes them away with a sign of -1.
    pub fn add(&mut self, other: &PrefixSums, sign: i64) {
        self.requests += sign * other.requests;
        self.prompt_bytes += sign * other.prompt_bytes;
        self.shared_bytes += sign * other.shared_bytes;
        self.lost_ms += sign * other.lost_ms;
    }
}

/// Sums by series and the number of the reason.
pub type PrefixPack = BTreeMap<(i64, u8), PrefixSums>;

/// Reads every entry of a pack.
pub fn visit_prefixes(bytes: &[u8], mut visit: impl FnMut(i64, u8, &PrefixSums)) -> Result<(), DamagedPack> {
    visit_entries(bytes, |entry, bytes| {
        visit(entry / REASONS, (entry % REASONS) as u8, &decode(bytes).ok_or(DamagedPack)?);
        Ok(())
    })
}

fn decode(bytes: &mut Bytes) -> Option<PrefixSums> {
    Some(PrefixSums {
        requests: bytes.signed()?,
        prompt_bytes: bytes.signed()?,
        shared_bytes: bytes.signed()?,
        lost_ms: bytes.signed()?,
    })
}

/// A pack as it is stored.
pub fn encode_prefixes(pack: &PrefixPack) -> Vec<u8> {
    let (mut out, mut before) = (Vec::with_capacity(pack.len() * 16), 0);
    for ((series, reason), sums) in pack {
        let entry = series * REASONS + i64::from(*reason);
        push(&mut out, (entry - before) as u64);
        before = entry;
        for number in [sums.requests, sums.prompt_bytes, sums.shared_bytes, sums.lost_ms] {
            push_signed(&mut out, number);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_read_as_it_was_written() {
        let sums = |of: i64| PrefixSums { requests: of, prompt_bytes: of << 40, shared_bytes: -of, lost_ms: 0 };
        let pack: PrefixPack = [((1, 0), sums(3)), ((1, 15), sums(1)), ((7, 2), sums(9))].into();
        let mut read = PrefixPack::new();
        visit_prefixes(&encode_prefixes(&pack), |series, reason, sums| {
            read.insert((series, reason), *sums);
        })
        .expect("a pack");
        assert_eq!(read, pack);
        assert_eq!(visit_prefixes(&encode_prefixes(&pack)[..3], |_, _, _| ()), Err(DamagedPack));
    }
}
