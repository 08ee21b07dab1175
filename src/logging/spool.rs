//! What lies between whoever logs and a standard error stream that may take nothing: a pipe that nobody reads, a
//! terminal that was stopped with Ctrl-S.
//!
//! Where the system lets a stream be opened once more, whoever logs writes his line himself, and is told at once where
//! the stream takes none: what a killed process said last is out. Else, and from then on until all is written, he leaves
//! it in memory and goes on. One thread, the [`Scribe`]'s, writes that, and it alone ever waits for the stream. To make
//! the stream itself non-blocking would change it for every process that shares it.

use std::io::{self, Write};
use std::mem;
use std::time::Duration;

use crate::bell::Bell;
use crate::limits::{LOG_PIECE_BYTES_MAX, LOG_REST, LOG_WAITING_BYTES_MAX};

/// Memory that the scribe keeps between two turns; what a stalled stream made it take beyond is given back.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Lines that wait to be written, bounded in bytes.
pub(super) struct Spool {
    /// Rings for the scribe, and for who waits until all is written.
    state: Bell<State>,
}

struct State {
    /// Takes bytes at once or not at all.
    direct: Option<Box<dyn Write + Send>>,
    /// Whole lines, in their order.
    lines: Vec<u8>,
    /// Lines lost behind these. Invariant: while there are any, no line is added, so that the gap is in one place.
    lost: u64,
    /// Lines lost since the start.
    lost_ever: u64,
    /// The scribe waits for a line.
    asleep: bool,
    /// The scribe has lines in hand.
    writing: bool,
    /// The scribe takes no rest before it looks again.
    hurry: bool,
}

impl State {
    fn is_unwritten(&self) -> bool {
        self.writing || !self.lines.is_empty() || self.lost > 0
    }
}

impl Spool {
    /// An empty one.
    pub(super) const fn new() -> Spool {
        Spool {
            state: Bell::new(State {
                direct: None,
                lines: Vec::new(),
                lost: 0,
                lost_ever: 0,
                asleep: false,
                writing: false,
                hurry: false,
            }),
        }
    }

    /// Writes to `direct`, which never waits, as long as it takes what it is given.
    #[cfg(any(target_os = "linux", test))]
    pub(super) fn write_directly_to(&self, direct: impl Write + Send + 'static) {
        self.state.lock().direct = Some(Box::new(direct));
    }

    /// Takes a line, its line end included, or loses it. Never waits for the stream.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        let mut line = line;
        if !state.is_unwritten()
            && let Some(direct) = &mut state.direct
        {
            // What goes wrong but for a lack of room the scribe finds, too.
            let written = direct.write(line).unwrap_or(0);
            line = &line[written..];
            if line.is_empty() {
                return;
            }
        }
        if state.lost > 0 || state.lines.len() + line.len() > LOG_WAITING_BYTES_MAX {
            (state.lost, state.lost_ever) = (state.lost + 1, state.lost_ever + 1);
            return;
        }
        state.lines.extend_from_slice(line);
        let asleep = mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.state.ring(|_| ());
        }
    }

    /// Waits until all is written, `at_most` so long; whether it is.
    pub(super) fn drain(&self, at_most: Duration) -> bool {
        self.state.ring(|state| state.hurry = true);
        self.state.wait_for(at_most, |state| (!state.is_unwritten()).then_some(())).is_some()
    }

    /// Lines lost so far.
    pub(super) fn lost_ever(&self) -> u64 {
        self.state.lock().lost_ever
    }

    /// Waits for lines and takes them all, leaving `spare` for the next ones; and how many were lost behind them.
    fn take(&self, mut spare: Vec<u8>) -> (Vec<u8>, u64) {
        self.state.wait(|state| {
            state.asleep = !state.is_unwritten();
            if state.asleep {
                return None;
            }
            (state.writing, state.hurry) = (true, false);
            Some((mem::replace(&mut state.lines, mem::take(&mut spare)), mem::take(&mut state.lost)))
        })
    }

    /// What was taken is written. Then the scribe rests, so that a busy proxy pays for one write and one wake-up where
    /// many lines come; a line that comes alone never waits for that.
    fn rest(&self, at_most: Duration) {
        self.state.ring(|state| state.writing = false);
        self.state.wait_for(at_most, |state| state.hurry.then_some(()));
    }

    /// What waits to be written.
    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.state.lock().lines.clone()).expect("lines are text")
    }
}

/// Writes what the spool holds.
pub(super) struct Scribe<W> {
    output: W,
    /// Makes a line of the log that says how many were lost.
    tell: fn(u64) -> Vec<u8>,
    /// Lines lost that the log does not tell of yet.
    untold: u64,
}

impl<W: Write> Scribe<W> {
    /// One that writes to `output`.
    pub(super) fn new(output: W, tell: fn(u64) -> Vec<u8>) -> Scribe<W> {
        Scribe { output, tell, untold: 0 }
    }

    /// Writes as long as the process lives.
    pub(super) fn run(mut self, spool: &Spool) -> ! {
        let mut spare = Vec::new();
        loop {
            spare = self.turn(spool, spare);
            spool.rest(LOG_REST);
        }
    }

    /// Takes what waits, or waits for it, and writes it; memory for the next turn.
    fn turn(&mut self, spool: &Spool, spare: Vec<u8>) -> Vec<u8> {
        let (mut lines, lost) = spool.take(spare);
        for piece in pieces(&lines) {
            self.tell_lost();
            if self.write(piece).is_err() {
                let count = memchr::memchr_iter(b'\n', piece).count() as u64;
                self.untold += count;
                spool.state.lock().lost_ever += count;
            }
        }
        self.untold += lost;
        self.tell_lost();
        lines.clear();
        lines.shrink_to(KEPT_BYTES_MAX);
        lines
    }

    fn tell_lost(&mut self) {
        if self.untold > 0 && self.write(&(self.tell)(self.untold)).is_ok() {
            self.untold = 0;
        }
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.output.write_all(piece).and_then(|()| self.output.flush())
    }
}

/// Whole lines, as many as a pipe takes without a part of another process's between them; a longer line alone.
fn pieces(mut lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let most = &lines[..lines.len().min(LOG_PIECE_BYTES_MAX)];
        let end = memchr::memrchr(b'\n', most).or_else(|| memchr::memchr(b'\n', lines));
        let (piece, rest) = lines.split_at(end.map_or(lines.len(), |at| at + 1));
        lines = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A stream that fails as long as it is told to.
    #[derive(Default)]
    struct Stream {
        writes: Vec<String>,
        broken: bool,
    }

    impl Write for Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.broken {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.writes.push(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn scribe() -> Scribe<Stream> {
        Scribe::new(Stream::default(), |lost| format!("{lost} lost\n").into_bytes())
    }

    fn line(number: usize) -> String {
        format!("line {number} {}\n", "x".repeat(1000))
    }

    #[test]
    fn lines_are_written_whole_and_in_their_order() {
        let (spool, mut scribe) = (Spool::new(), scribe());
        let long = format!("{}\n", "y".repeat(3 * LOG_PIECE_BYTES_MAX));
        let lines: Vec<String> = (0..20).map(line).chain([long]).chain((20..40).map(line)).collect();
        lines.iter().for_each(|line| spool.push(line.as_bytes()));
        scribe.turn(&spool, Vec::new());
        let writes = &scribe.output.writes;
        assert_eq!(writes.concat(), lines.concat());
        assert!(writes.iter().all(|write| write.ends_with('\n')));
        assert!(writes.iter().all(|write| write.len() <= LOG_PIECE_BYTES_MAX || write.starts_with('y')));
        assert!(writes.len() < lines.len(), "lines are not gathered");
        assert_eq!(spool.lost_ever(), 0);
    }

    #[test]
    fn what_the_stream_does_not_take_is_bounded_and_the_gap_is_told_where_it_is() {
        let (spool, mut scribe) = (Spool::new(), scribe());
        let fit = LOG_WAITING_BYTES_MAX / line(10_000).len();
        (10_000..10_000 + fit + 5).for_each(|number| spool.push(line(number).as_bytes()));
        // It would fit, but behind the gap.
        spool.push(b"short\n");
        assert_eq!(spool.lost_ever(), 6);
        assert!(spool.state.lock().lines.len() <= LOG_WAITING_BYTES_MAX);
        let spare = scribe.turn(&spool, Vec::new());
        assert!(spare.capacity() <= KEPT_BYTES_MAX, "the memory is given back");
        spool.push(b"next\n");
        scribe.turn(&spool, spare);
        let kept: String = (10_000..10_000 + fit).map(line).collect();
        assert_eq!(scribe.output.writes.concat(), format!("{kept}6 lost\nnext\n"));
        assert_eq!(spool.lost_ever(), 6);
    }

    #[test]
    fn lines_that_cannot_be_written_count_as_lost_until_one_can() {
        let (spool, mut scribe) = (Spool::new(), scribe());
        for broken in [true, true, false] {
            scribe.output.broken = broken;
            spool.push(b"one\n");
            spool.push(b"two\n");
            scribe.turn(&spool, Vec::new());
        }
        assert_eq!(scribe.output.writes.concat(), "4 lost\none\ntwo\n");
        assert_eq!(spool.lost_ever(), 4);
    }

    /// Takes so many bytes, and then none.
    struct Room(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, taken) = &mut *self.0.lock().expect("no panic under it");
            if *room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = bytes.len().min(*room);
            taken.extend_from_slice(&bytes[..count]);
            *room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stream_that_takes_bytes_at_once_gets_them_in_the_same_order() {
        let (spool, mut scribe) = (Spool::new(), scribe());
        let room = Arc::new(Mutex::new((10, Vec::new())));
        spool.write_directly_to(Room(room.clone()));
        let taken = || String::from_utf8(room.lock().expect("no panic under it").1.clone()).expect("text");
        spool.push(b"first\n");
        assert_eq!((taken().as_str(), spool.text().as_str()), ("first\n", ""));
        spool.push(b"second\n");
        assert_eq!((taken().as_str(), spool.text().as_str()), ("first\nseco", "nd\n"));
        // There is room again, but what waits is first.
        room.lock().expect("no panic under it").0 = 100;
        spool.push(b"third\n");
        assert_eq!((taken().as_str(), spool.text().as_str()), ("first\nseco", "nd\nthird\n"));
        let spare = scribe.turn(&spool, Vec::new());
        // The scribe has not said yet that all of it is written.
        spool.push(b"fourth\n");
        assert_eq!(taken(), "first\nseco");
        scribe.turn(&spool, spare);
        spool.rest(Duration::ZERO);
        assert_eq!(scribe.output.writes.concat(), "nd\nthird\nfourth\n");
        spool.push(b"fifth\n");
        assert_eq!(taken(), "first\nsecofifth\n");
    }

    #[test]
    fn draining_ends_whether_or_not_the_stream_takes_anything() {
        let spool = Spool::new();
        assert!(spool.drain(Duration::from_secs(60)), "there is nothing to wait for");
        spool.push(b"one\n");
        assert!(!spool.drain(Duration::from_millis(1)), "nobody writes");
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut scribe = scribe();
                scribe.turn(&spool, Vec::new());
                spool.rest(Duration::ZERO);
                scribe.output.writes.concat()
            });
            assert!(spool.drain(Duration::from_secs(60)));
            assert_eq!(writer.join().expect("no panic"), "one\n");
        });
    }
}
