//! Packs: the sums and distributions of all series for one span of time, in one blob each.
//!
//! A year has 8760 hours; with a hundred series that is a million sums, too many to read for an answer one by one. As
//! packs the same year is twelve blobs of some kilobytes, its hours a hundredth of the time that rows take. An hour's
//! pack knows the lowest and highest id of its rows, so that a range of time is a range of ids.
//!
//! Packs of sums begin with [`FORM`]. Those from before there was one are read as they are, and written in this form
//! when they grow.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension, params};

use super::histogram::Histogram;
use super::sums::{Known, Sums};
use super::varint::{Bytes, push, push_signed};
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

/// What one row adds to the distributions.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Milliseconds.
    pub duration_ms: i64,
    /// Milliseconds.
    pub first_token_ms: Option<i64>,
    /// Tokens per second.
    pub tokens_per_second: Option<f64>,
}

impl Latencies {
    /// Counts one row.
    pub fn count(&mut self, sample: &Sample) {
        self.duration_ms.count(sample.duration_ms);
        if let Some(value) = sample.first_token_ms {
            self.first_token_ms.count(value);
        }
        if let Some(value) = sample.tokens_per_second {
            self.speed.count((value * 1000.0).round() as i64);
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
    /// Adds others, or takes them away with a sign of -1.
    pub fn add(&mut self, other: &Measured, sign: i64) {
        self.sums.add(&other.sums, sign);
        self.latencies.add(&other.latencies, sign);
    }

    /// Those of a key. Where there are none yet, of no rows, in the range of ids of what is about to be added.
    pub(super) fn entry<'a, K: Ord>(all: &'a mut BTreeMap<K, Measured>, key: K, added: &Sums) -> &'a mut Measured {
        all.entry(key).or_insert_with(|| Measured {
            sums: Sums { first_id: added.first_id, last_id: added.last_id, ..Sums::default() },
            latencies: Latencies::default(),
        })
    }
}

/// The first byte of a pack of sums whose entries tell tokens written to a cache. Without it a pack begins with the id
/// of a series, which is above 0.
const FORM: u8 = 0;

/// The bytes in the database are no pack.
fn damaged() -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, "a damaged pack of sums".into())
}

/// Reads every entry of a pack of sums.
pub fn visit_sums(bytes: &[u8], visit: impl FnMut(i64, &Sums)) -> rusqlite::Result<()> {
    visit_entries(bytes, decode_sums, visit)
}

/// The same without first tokens, speeds and ids, which totals do not tell: a third of the figures.
pub fn visit_totals(bytes: &[u8], visit: impl FnMut(i64, &Sums)) -> rusqlite::Result<()> {
    visit_entries(bytes, decode_totals, visit)
}

fn visit_entries(
    bytes: &[u8],
    decode: impl Fn(&mut Bytes, bool) -> Option<Sums>,
    mut visit: impl FnMut(i64, &Sums),
) -> rusqlite::Result<()> {
    let (mut bytes, tells_cache_write) = match bytes.strip_prefix(&[FORM]) {
        Some(entries) => (Bytes::new(entries), true),
        None => (Bytes::new(bytes), false),
    };
    let mut series = 0;
    while !bytes.is_empty() {
        let mut entry = || Some((i64::try_from(bytes.number()?).ok()?, decode(&mut bytes, tells_cache_write)?));
        let (distance, sums) = entry().ok_or_else(damaged)?;
        series += distance;
        visit(series, &sums);
    }
    Ok(())
}

/// The distributions of one series as they lie in a pack, not read yet.
#[derive(Debug)]
pub struct Packed<'a>(Bytes<'a>);

impl Packed<'_> {
    /// Adds them to others.
    pub fn add_to(self, latencies: &mut Latencies) -> rusqlite::Result<()> {
        latencies.add_encoded(self.0).ok_or_else(damaged)
    }
}

/// Reads every entry of a pack of distributions; those that are not wanted cost next to nothing.
pub fn visit_latencies(
    bytes: &[u8],
    mut visit: impl FnMut(i64, Packed) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut bytes = Bytes::new(bytes);
    let mut series = 0;
    while !bytes.is_empty() {
        let mut entry = || {
            let distance = i64::try_from(bytes.number()?).ok()?;
            let length = usize::try_from(bytes.number()?).ok()?;
            Some((distance, bytes.take(length)?))
        };
        let (distance, entry) = entry().ok_or_else(damaged)?;
        series += distance;
        visit(series, Packed(entry))?;
    }
    Ok(())
}

#[inline]
fn decode_sums(bytes: &mut Bytes, tells_cache_write: bool) -> Option<Sums> {
    let mut sums = Sums { requests: bytes.signed()?, duration_ms: bytes.signed()?, ..Sums::default() };
    let told = sums.known().len() - usize::from(!tells_cache_write);
    for known in sums.known_mut().into_iter().take(told) {
        *known = decode_known(bytes)?;
    }
    sums.tokens_per_second_known = bytes.signed()?;
    sums.tokens_per_second = if sums.tokens_per_second_known == 0 { 0.0 } else { bytes.real()? };
    sums.first_id = bytes.signed()?;
    sums.last_id = sums.first_id + bytes.signed()?;
    Some(sums)
}

#[inline]
fn decode_totals(bytes: &mut Bytes, tells_cache_write: bool) -> Option<Sums> {
    let mut sums = Sums {
        requests: bytes.signed()?,
        duration_ms: bytes.signed()?,
        input: decode_known(bytes)?,
        output: decode_known(bytes)?,
        total: decode_known(bytes)?,
        cached: decode_known(bytes)?,
        reasoning: decode_known(bytes)?,
        ..Sums::default()
    };
    if bytes.number()? != 0 {
        bytes.skip(1)?;
    }
    if tells_cache_write {
        sums.cache_write = decode_known(bytes)?;
    }
    if bytes.number()? != 0 {
        bytes.real()?;
    }
    bytes.skip(2)?;
    Some(sums)
}

/// Often nobody tells a figure: then its sum is not there either.
#[inline(always)]
fn decode_known(bytes: &mut Bytes) -> Option<Known> {
    let rows = bytes.signed()?;
    Some(Known { sum: if rows == 0 { 0 } else { bytes.signed()? }, rows })
}

fn encode_sums(pack: &BTreeMap<i64, Measured>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + pack.len() * 40);
    out.push(FORM);
    let mut before = 0;
    for (series, Measured { sums, .. }) in pack {
        push(&mut out, (series - before) as u64);
        before = *series;
        encode_entry(&mut out, sums, &sums.known());
    }
    out
}

fn encode_entry(out: &mut Vec<u8>, sums: &Sums, known: &[Known]) {
    push_signed(out, sums.requests);
    push_signed(out, sums.duration_ms);
    for Known { sum, rows } in known {
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

/// Writes every pack of sums as version 2 of the tables had it.
#[cfg(test)]
pub(super) fn write_former_form(conn: &Connection) -> rusqlite::Result<()> {
    let mut statement = conn.prepare("SELECT id, pack FROM packed_sums")?;
    let packs = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for (id, pack) in packs.collect::<rusqlite::Result<Vec<(i64, Vec<u8>)>>>()? {
        let (mut former, mut before) = (Vec::new(), 0);
        visit_sums(&pack, |series, sums| {
            push(&mut former, (series - before) as u64);
            before = series;
            encode_entry(&mut former, sums, &sums.known()[..6]);
        })?;
        conn.execute("UPDATE packed_sums SET pack = ?2 WHERE id = ?1", params![id, former])?;
    }
    Ok(())
}

fn encode_latencies(pack: &BTreeMap<i64, Measured>) -> Vec<u8> {
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

/// Packs that are being added to: read once, written once.
#[derive(Debug, Default)]
pub(super) struct Packs {
    packs: HashMap<i64, BTreeMap<i64, Measured>>,
}

/// Packs held at once. Rows come in the order of time, nearly, so that few are needed again.
const PACKS_HELD: usize = 64;

impl Packs {
    /// Adds to the four packs of an hour what rows of one series come to, or takes it away with a sign of -1.
    pub(super) fn add(
        &mut self,
        conn: &Connection,
        hour: i64,
        series: i64,
        measured: &Measured,
        sign: i64,
    ) -> rusqlite::Result<()> {
        if self.packs.len() > PACKS_HELD {
            self.write(conn)?;
        }
        for id in packs_of_hour(hour) {
            let pack = match self.packs.entry(id) {
                std::collections::hash_map::Entry::Occupied(pack) => pack.into_mut(),
                std::collections::hash_map::Entry::Vacant(place) => place.insert(read(conn, id)?),
            };
            Measured::entry(pack, series, &measured.sums).add(measured, sign);
        }
        Ok(())
    }

    pub(super) fn write(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if self.packs.is_empty() {
            return Ok(());
        }
        let mut write_sums = conn.prepare_cached("INSERT OR REPLACE INTO packed_sums VALUES (?1, ?2)")?;
        let mut write_latencies = conn.prepare_cached("INSERT OR REPLACE INTO packed_latencies VALUES (?1, ?2)")?;
        for (id, pack) in self.packs.drain() {
            write_sums.execute(params![id, encode_sums(&pack)])?;
            write_latencies.execute(params![id, encode_latencies(&pack)])?;
        }
        Ok(())
    }
}

/// A pack as it is stored; none is an empty one.
pub(super) fn read(conn: &Connection, id: i64) -> rusqlite::Result<BTreeMap<i64, Measured>> {
    let blob = |query: &str| {
        let blob = conn.prepare_cached(query)?.query_row([id], |row| row.get::<_, Vec<u8>>(0)).optional();
        blob.map(Option::unwrap_or_default)
    };
    let mut pack: BTreeMap<i64, Measured> = BTreeMap::new();
    visit_sums(&blob("SELECT pack FROM packed_sums WHERE id = ?1")?, |series, sums| {
        pack.insert(series, Measured { sums: sums.clone(), latencies: Latencies::default() });
    })?;
    visit_latencies(&blob("SELECT pack FROM packed_latencies WHERE id = ?1")?, |series, packed| {
        packed.add_to(&mut pack.entry(series).or_default().latencies)
    })?;
    Ok(pack)
}
