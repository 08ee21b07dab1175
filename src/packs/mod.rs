//! Packs: what the requests of one span of time come to, series by series: sums, and distributions of durations and
//! speeds, in one blob each. Pure: no connection, file or clock.
//!
//! A year has 8760 hours; with a hundred series that is a million sums, too many to read for an answer one by one. As
//! packs the same year is twelve blobs of some kilobytes, its hours a hundredth of the time that rows take. An hour's
//! pack knows the lowest and highest id of its rows, so that a range of time is a range of ids.
//!
//! Packs of sums begin with [`FORM`]. Those from before there was one are read as they are, and written in this form
//! when they grow.

pub mod histogram;
pub mod prefixes;
pub mod sums;
pub mod times;
pub mod varint;

use std::collections::BTreeMap;

use self::histogram::Histogram;
use self::sums::{Figure, KnownSum, Sums};
use self::varint::{Bytes, push, push_signed};
use crate::calendar::{day_of_hour, month_of_hour};

/// `span` of the pack of all time.
pub const SPAN_ALL: i64 = 0;
/// `span` of a day's pack.
pub const SPAN_DAY: i64 = 1;
/// `span` of an hour's pack.
pub const SPAN_HOUR: i64 = 2;
/// `span` of a month's pack.
pub const SPAN_MONTH: i64 = 3;

/// The id of a pack. `start`: hours since 1970.
pub fn pack_id(span: i64, start: i64) -> i64 {
    span << 32 | start
}

/// The ids of the packs that an hour belongs to: its own, its day's, its month's and that of all time.
pub fn packs_of_hour(hour: i64) -> [i64; 4] {
    let spans = [(SPAN_HOUR, hour), (SPAN_DAY, day_of_hour(hour)), (SPAN_MONTH, month_of_hour(hour)), (SPAN_ALL, 0)];
    spans.map(|(span, start)| pack_id(span, start))
}

/// The distributions of one series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latencies {
    /// Milliseconds from request to end of reply.
    pub duration_ms: Histogram,
    /// Milliseconds from request to first content.
    pub first_token_ms: Histogram,
    /// Thousandths of tokens per second.
    pub speed: Histogram,
}

impl Latencies {
    /// Counts one row, whose sums these are.
    fn count(&mut self, row: &Sums) {
        self.duration_ms.count(row.duration_ms);
        if row[Figure::FirstTokenMs].rows > 0 {
            self.first_token_ms.count(row[Figure::FirstTokenMs].sum);
        }
        if row.tokens_per_second_known > 0 {
            self.speed.count((row.tokens_per_second * 1000.0).round() as i64);
        }
    }

    /// Adds others, or takes them away with a sign of -1.
    pub fn add(&mut self, other: &Latencies, sign: i64) {
        self.duration_ms.add(&other.duration_ms, sign);
        self.first_token_ms.add(&other.first_token_ms, sign);
        self.speed.add(&other.speed, sign);
    }

    /// Memory that they take, nearly.
    pub fn bytes(&self) -> usize {
        [&self.duration_ms, &self.first_token_ms, &self.speed].into_iter().map(Histogram::bytes).sum()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.duration_ms.encode(out);
        self.first_token_ms.encode(out);
        self.speed.encode(out);
    }

    fn add_encoded(&mut self, mut bytes: Bytes) -> Option<()> {
        self.duration_ms.add_encoded(&mut bytes)?;
        self.first_token_ms.add_encoded(&mut bytes)?;
        self.speed.add_encoded(&mut bytes)
    }
}

/// What rows come to: their sums, and the distributions of durations and speeds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// The sums.
    pub sums: Sums,
    /// The distributions.
    pub latencies: Latencies,
}

impl Measured {
    /// Counts one row, whose sums these are.
    pub fn count(&mut self, row: &Sums) {
        self.sums.add(row, 1);
        self.latencies.count(row);
    }

    /// Adds others, or takes them away with a sign of -1.
    pub fn add(&mut self, other: &Measured, sign: i64) {
        self.sums.add(&other.sums, sign);
        self.latencies.add(&other.latencies, sign);
    }

    /// Those of a key. Where there are none yet, of no rows, in the range of ids of what is about to be added.
    pub fn entry<'a, K: Ord>(all: &'a mut BTreeMap<K, Measured>, key: K, added: &Sums) -> &'a mut Measured {
        all.entry(key).or_insert_with(|| Measured {
            sums: Sums { first_id: added.first_id, last_id: added.last_id, ..Sums::default() },
            latencies: Latencies::default(),
        })
    }
}

/// The first byte of a pack of sums whose entries tell tokens written to a cache. Without it a pack begins with the id
/// of a series, which is above 0.
const FORM: u8 = 0;

/// The bytes are no pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedPack;

/// Reads every entry of a pack of sums.
pub fn visit_sums(bytes: &[u8], mut visit: impl FnMut(i64, &Sums)) -> Result<(), DamagedPack> {
    let (entries, tells_cache_write) = bytes.strip_prefix(&[FORM]).map_or((bytes, false), |entries| (entries, true));
    let mut sums = Sums::default();
    visit_entries(entries, |series, bytes| {
        decode_sums(bytes, tells_cache_write, &mut sums).ok_or(DamagedPack)?;
        visit(series, &sums);
        Ok(())
    })
}

/// Entries stand behind the distance of their series from the one before. `visit` takes each from the bytes.
fn visit_entries<'p>(
    bytes: &'p [u8],
    mut visit: impl FnMut(i64, &mut Bytes<'p>) -> Result<(), DamagedPack>,
) -> Result<(), DamagedPack> {
    let (mut bytes, mut series) = (Bytes::new(bytes), 0);
    while !bytes.is_empty() {
        series += bytes.number().and_then(|distance| i64::try_from(distance).ok()).ok_or(DamagedPack)?;
        visit(series, &mut bytes)?;
    }
    Ok(())
}

/// The distributions of one series as they lie in a pack, not read yet.
#[derive(Debug)]
pub struct PackedLatencies<'a>(Bytes<'a>);

impl<'p> PackedLatencies<'p> {
    fn read(bytes: &mut Bytes<'p>) -> Option<PackedLatencies<'p>> {
        let length = usize::try_from(bytes.number()?).ok()?;
        bytes.take(length).map(PackedLatencies)
    }

    /// Adds them to others.
    pub fn add_to(self, latencies: &mut Latencies) -> Result<(), DamagedPack> {
        latencies.add_encoded(self.0).ok_or(DamagedPack)
    }
}

/// Reads every entry of a pack of distributions; those that are not wanted cost next to nothing.
pub fn visit_latencies(
    bytes: &[u8],
    mut visit: impl FnMut(i64, PackedLatencies) -> Result<(), DamagedPack>,
) -> Result<(), DamagedPack> {
    visit_entries(bytes, |series, bytes| visit(series, PackedLatencies::read(bytes).ok_or(DamagedPack)?))
}

/// Overwrites every figure but the one that an older form does not tell. Within its caller the compiler leaves out what
/// nobody looks at: as a call, a year of months took a tenth longer.
#[inline(always)]
fn decode_sums(bytes: &mut Bytes, tells_cache_write: bool, sums: &mut Sums) -> Option<()> {
    sums.requests = bytes.signed()?;
    sums.duration_ms = bytes.signed()?;
    let told = sums.known.len() - usize::from(!tells_cache_write);
    for known in &mut sums.known[..told] {
        *known = decode_known(bytes)?;
    }
    sums.tokens_per_second_known = bytes.signed()?;
    sums.tokens_per_second = if sums.tokens_per_second_known == 0 { 0.0 } else { bytes.real()? };
    sums.first_id = bytes.signed()?;
    sums.last_id = sums.first_id + bytes.signed()?;
    Some(())
}

/// Often nobody tells a figure: then its sum is not there either.
#[inline(always)]
fn decode_known(bytes: &mut Bytes) -> Option<KnownSum> {
    let rows = bytes.signed()?;
    Some(KnownSum { sum: if rows == 0 { 0 } else { bytes.signed()? }, rows })
}

/// A pack of sums, without distributions.
pub fn read_sums(pack: &[u8]) -> Result<BTreeMap<i64, Measured>, DamagedPack> {
    let mut read = BTreeMap::new();
    visit_sums(pack, |series, sums| {
        read.insert(series, Measured { sums: sums.clone(), ..Measured::default() });
    })?;
    Ok(read)
}

/// The sums of a pack as they are stored.
pub fn encode_sums(pack: &BTreeMap<i64, Measured>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + pack.len() * 40);
    out.push(FORM);
    let mut before = 0;
    for (series, Measured { sums, .. }) in pack {
        push(&mut out, (series - before) as u64);
        before = *series;
        encode_entry(&mut out, sums, &sums.known);
    }
    out
}

fn encode_entry(out: &mut Vec<u8>, sums: &Sums, known: &[KnownSum]) {
    push_signed(out, sums.requests);
    push_signed(out, sums.duration_ms);
    for KnownSum { sum, rows } in known {
        push_signed(out, *rows);
        if *rows != 0 {
            push_signed(out, *sum);
        }
    }
    push_signed(out, sums.tokens_per_second_known);
    if sums.tokens_per_second_known != 0 {
        out.extend_from_slice(&sums.tokens_per_second.to_le_bytes());
    }
    push_signed(out, sums.first_id);
    push_signed(out, sums.last_id - sums.first_id);
}

/// As version 2 of the tables had it.
#[cfg(test)]
pub(crate) fn in_former_form(pack: &[u8]) -> Vec<u8> {
    let (mut former, mut before) = (Vec::new(), 0);
    let read = visit_sums(pack, |series, sums| {
        push(&mut former, (series - before) as u64);
        before = series;
        encode_entry(&mut former, sums, &sums.known[..Figure::CacheWrite as usize]);
    });
    read.expect("a pack");
    former
}

/// The distributions of a pack as they are stored.
pub fn encode_latencies(pack: &BTreeMap<i64, Measured>) -> Vec<u8> {
    let mut out = Vec::with_capacity(pack.len() * 128);
    let (mut before, mut entry) = (0, Vec::new());
    for (series, Measured { latencies, .. }) in pack {
        push(&mut out, (series - before) as u64);
        before = *series;
        entry.clear();
        latencies.encode(&mut entry);
        push(&mut out, entry.len() as u64);
        out.extend_from_slice(&entry);
    }
    out
}
