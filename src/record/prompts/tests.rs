//! Conversations of every dialect, as agents send them, against a slow oracle that keeps each text whole.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;

use super::memory::tests::check_memory;
use super::*;
use crate::calendar::DAY_MS;
use crate::limits::{PIECED_BYTES_MIN, PROMPTS_KNOWN_BYTES_MAX};
use crate::record::clean::{Cleaner, Retention};
use crate::record::recorder::Recorder;
use crate::record::row::{Content, Row};
use crate::record::store::{DbSync, Store};
use crate::settings::Limit;
use crate::stats::Reader;
use crate::testing::{Folder, Random, row};
use crate::usage::prompt::prompt_text;
use crate::usage::{RequestFacts, inject};

/// What a client repeats with each request.
#[derive(Clone)]
struct Conversation {
    dialect: u64,
    system: String,
    tools: Vec<String>,
    turns: Vec<String>,
    /// Members in front of the others, and behind them.
    around: [String; 2],
}

const DIALECTS: u64 = 8;

impl Conversation {
    fn new(random: &mut Random) -> Conversation {
        let tools = (0..random.below(6)).map(|_| words(random, 900)).collect();
        let turns = (0..random.below(8)).map(|_| words(random, 4000)).collect();
        let around = [members(random), members(random)];
        Conversation { dialect: random.below(DIALECTS), system: words(random, 12_000), tools, turns, around }
    }

    /// What an agent does between two requests.
    fn go_on(&mut self, random: &mut Random) {
        let turns = self.turns.len();
        match random.below(13) {
            0 if turns > 0 => self.turns[random.index(turns)] = words(random, 3000),
            1 => self.turns.truncate(random.index(turns)),
            2 => self.system = words(random, 12_000),
            3 if self.tools.len() > 1 => self.tools.rotate_left(1),
            4 if turns > 0 => drop(self.turns.remove(random.index(turns))),
            // Sent once more.
            5 => {}
            6 => self.around[random.index(2)] = members(random),
            _ => self.turns.extend((0..=random.below(3)).map(|_| words(random, 5000))),
        }
    }

    fn body(&self) -> String {
        let list = |of: &[String], with: &dyn Fn(&String) -> String| {
            format!("[{}]", of.iter().map(with).collect::<Vec<_>>().join(if self.dialect < 4 { "," } else { ",\n  " }))
        };
        let (system, [before, behind]) = (&self.system, &self.around);
        let tools =
            list(&self.tools, &|tool| format!(r#"{{"type":"function","function":{{"description":"{tool}"}}}}"#));
        let messages = list(&self.turns, &|turn| format!(r#"{{"role":"user","content":"{turn}"}}"#));
        match self.dialect {
            0 => {
                format!(r#"{{"model":"m"{before},"system":"{system}","messages":{messages},"tools":{tools}{behind}}}"#)
            }
            1 => format!(
                r#"{{"model":"m"{before},"instructions":"{system}","input":{messages},"tools":{tools}{behind}}}"#
            ),
            2 => format!(
                r#"{{"tools":{tools},"system":[{{"type":"text","text":"{system}"}}]{before},"messages":{messages}{behind}}}"#
            ),
            3 => format!(r#"{{"contents":{messages},"tools":[{{"functionDeclarations":{tools}}}]}}"#),
            4 => format!("{{\n \"messages\" : {messages} ,\n \"\\u0074ools\" : {tools}\n}}\n"),
            5 => format!(r#"{{"prompt":"{system}{}","max_tokens":9}}"#, self.turns.concat()),
            6 => format!("{system}\n{}", self.turns.join("\n")),
            // Cut short by whoever sent it.
            _ => format!(r#"{{"messages":{messages},"input":["{system}"#),
        }
    }
}

/// Some that tell.
fn members(random: &mut Random) -> String {
    const MEMBERS: [&str; 8] = [
        "",
        r#","stream":true"#,
        r#","stream":false,"n":2"#,
        r#","user":"ann","stream":true"#,
        r#","stream_options":{"include_usage":true}"#,
        r#","stream_options":null"#,
        r#","stop":["a","b"]"#,
        r#" , "\u006e" : 3"#,
    ];
    format!("{}{}", random.pick(&MEMBERS), random.pick(&MEMBERS))
}

/// The inside of a JSON string that no other is like, with a picture at times.
fn words(random: &mut Random, bytes_max: u64) -> String {
    const WORDS: [&str; 8] = ["fn main", "é", "\\n", "\\\"quoted\\\"", "😀", "[{\\\\}]", ",", " the "];
    let mut text = format!("{} ", random.below(u64::MAX));
    if random.below(40) == 0 {
        text.push_str(&format!("data:image/png;base64,{}", "A".repeat(random.index(3000))));
    }
    let bytes = random.below(bytes_max) as usize;
    while text.len() < bytes {
        text.push_str(WORDS[random.index(WORDS.len())]);
    }
    text
}

fn said(prompt: &str) -> Row {
    said_as(Some(Prompt::Whole(prompt.to_owned())))
}

fn said_as(prompt: Option<Prompt>) -> Row {
    Row { content: Content { prompt, ..Content::default() }, ..row() }
}

/// As long as the settings allow by default.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// A database that is written, cleaned and looked into, and what was said in it.
struct PromptBench {
    folder: Folder,
    recorder: Option<Recorder>,
    own: Connection,
    memory: PromptMemory,
    told: BTreeMap<i64, String>,
}

impl PromptBench {
    fn new() -> PromptBench {
        let folder = Folder::new();
        let recorder = Some(open(&folder.join("metrics.db")));
        let own = Connection::open(folder.join("metrics.db")).expect("opens");
        let memory = memory_of(&own);
        PromptBench { folder, recorder, own, memory, told: BTreeMap::new() }
    }

    fn recorder(&self) -> &Recorder {
        self.recorder.as_ref().expect("open")
    }

    /// Mostly as a request is read, else as a text that nobody has cut yet.
    fn write(&mut self, body: &str) -> i64 {
        let text = prompt_text(body.as_bytes(), BYTES_MAX).expect("a text");
        let row = match self.told.len() % 4 {
            0 => said(&text),
            _ => said_as(self.memory.read(body.as_bytes(), BYTES_MAX).prompt),
        };
        let id = self.recorder().commit(row, |_| ()).expect("is written");
        self.told.insert(id, text);
        id
    }

    /// As after a kill: what is not in the database is gone.
    fn restart(&mut self) {
        self.memory = memory_of(&self.own);
        self.recorder = None;
        self.recorder = Some(open(&self.folder.join("metrics.db")));
    }

    /// Cleans to the end, or for so many steps; each prompt that is still there is whole after each.
    fn clean(&self, retention: Retention, now_ms: i64, steps_max: usize) {
        self.recorder().pack(&self.own).expect("packs");
        let mut cleaner = Cleaner::new(retention);
        cleaner.begin(0);
        for _ in 0..steps_max {
            if !cleaner.is_at_work() {
                break;
            }
            cleaner.step(&self.own, self.recorder(), now_ms).expect("a step");
            self.check();
        }
    }

    /// Every prompt that is there is what was said.
    #[track_caller]
    fn check(&self) {
        let mut prompts = self.own.prepare_cached("SELECT id, prompt FROM prompts").expect("the view");
        let mut rows = prompts.query([]).expect("a query");
        let mut count = 0;
        while let Some(row) = rows.next().expect("a row") {
            let (id, prompt): (i64, String) = (row.get(0).expect("an id"), row.get(1).expect("a text"));
            assert!(prompt == self.told[&id], "prompt {id} is not what was said: {prompt}");
            count += 1;
        }
        assert_eq!(count, self.number("SELECT count(*) FROM content"), "none has come to nothing");
    }

    fn number(&self, query: &str) -> i64 {
        self.own.query_row(query, [], |row| row.get(0)).expect(query)
    }
}

fn memory() -> PromptMemory {
    PromptMemory::new(PieceKey::new(b"of another database"))
}

fn memory_of(database: &Connection) -> PromptMemory {
    let secret = "SELECT value FROM meta WHERE name = 'fingerprint_key'";
    PromptMemory::new(PieceKey::new(&database.query_row(secret, [], |row| row.get::<_, Vec<u8>>(0)).expect("a key")))
}

fn open(path: &Path) -> Recorder {
    Recorder::new(Store::open(path, DbSync::Normal).expect("opens"))
}

const NO: Limit = Limit { max: 0, is_set: true };
const NONE: Retention = Retention { days: NO, content_days: NO, content_bytes_max: NO };

fn within(bytes: u64) -> Retention {
    Retention { content_bytes_max: Limit { max: bytes, is_set: true }, ..NONE }
}

/// The next request of some conversations that go on in turns, branch and end.
fn next_prompt(random: &mut Random, going_on: &mut Vec<Conversation>) -> String {
    let place = random.index(going_on.len() + 1);
    if place == going_on.len() {
        let conversation = match random.below(3) {
            0 if place > 0 => going_on[random.index(place)].clone(),
            _ => Conversation::new(random),
        };
        going_on.push(conversation);
    }
    if going_on.len() > 8 {
        going_on.remove(random.index(8));
    }
    let place = place.min(going_on.len() - 1);
    going_on[place].go_on(random);
    going_on[place].body()
}

#[test]
fn every_prompt_is_what_was_said_over_restarts_and_clean_up() {
    for seed in 1..=4 {
        let mut random = Random::new(seed);
        let (mut bench, mut going_on) = (PromptBench::new(), Vec::new());
        for _ in 0..400 {
            match random.below(60) {
                0 => bench.restart(),
                1 => bench.clean(within(400_000 + random.below(400_000)), row().start_ms, random.index(200)),
                2 => bench.clean(NONE, row().start_ms, random.index(5)),
                _ => drop(bench.write(&next_prompt(&mut random, &mut going_on))),
            }
        }
        bench.check();
        // Each piece once, none that is needed is missing, and of the others no more than a block's.
        assert_eq!(bench.number("SELECT count(*) - count(DISTINCT text) FROM pieces"), 0, "{seed}");
        bench.clean(NONE, row().start_ms, usize::MAX);
        let unused = "SELECT count(*) FROM pieces
            WHERE last_block < (SELECT min(id) FROM content WHERE pieces IS NOT NULL) / 64";
        assert_eq!(bench.number(unused), 0, "{seed}");
        assert!(bench.number("SELECT count(*) FROM content WHERE pieces IS NOT NULL") > 0, "{seed}");
        // All of it goes, but for the newest row.
        bench.write("short");
        let days = Limit { max: 1, is_set: true };
        bench.clean(Retention { content_days: days, ..NONE }, row().start_ms + 3 * DAY_MS, usize::MAX);
        for table in ["pieces", "content"] {
            assert_eq!(bench.number(&format!("SELECT count(*) FROM {table}")), 0, "{seed} {table}");
        }
        assert_eq!(bench.number("SELECT value FROM meta WHERE name = 'pieces_bytes'"), 0, "{seed}");
        assert_eq!(bench.number("PRAGMA freelist_count"), 0, "{seed}");
    }
}

/// What is read with the help of earlier prompts is what is read without.
#[test]
fn what_the_last_prompts_have_too_changes_nothing_of_what_a_request_says() {
    let (mut random, mut going_on, memory) = (Random::new(21), Vec::new(), memory());
    let (mut with_others, mut without) = (0, 0);
    for turn in 0..500 {
        let mut body = next_prompt(&mut random, &mut going_on).into_bytes();
        match random.below(30) {
            0 => body.truncate(random.index(body.len())),
            1 => {
                let place = random.index(body.len());
                body[place] = random.below(256) as u8;
            }
            2 => body.extend_from_slice(b" \n"),
            3 => body.extend_from_slice(b"{\"stream\":true}"),
            _ => {}
        }
        let bytes_max = if turn % 10 == 0 { 20_000 } else { BYTES_MAX };
        let (read, alone) = (memory.read(&body, bytes_max), self::memory().read(&body, bytes_max));
        let facts = RequestFacts::read(&body);
        let edit = inject::edit(&body, &RequestOutline::of(&body));
        let text = prompt_text(&body, bytes_max).map(Prompt::Whole);
        for (read, how) in [(&read, "with others"), (&alone, "alone")] {
            assert_eq!((&read.facts, &read.edit), (&facts, &edit), "{turn}, {how}");
            assert!(read.prompt == text, "{turn}, {how}");
        }
        if let (Some(Prompt::Pieced(read)), Some(Prompt::Pieced(alone))) = (&read.prompt, &alone.prompt) {
            let hashes = |prompt: &PiecedPrompt| prompt.pieces.iter().map(|piece| piece.hash).collect::<Vec<_>>();
            assert_eq!(hashes(read), hashes(alone), "cut in the same places");
        }
        (with_others, without) = (with_others + read.prompt_bytes, without + alone.prompt_bytes);
        check_memory(&memory);
    }
    assert!(with_others * 4 < without * 3, "{with_others} of {without}");
}

#[test]
fn a_conversation_that_goes_on_costs_what_is_new() {
    let mut random = Random::new(7);
    for dialect in 0..5 {
        let mut bench = PromptBench::new();
        let mut one = Conversation { dialect, ..Conversation::new(&mut random) };
        let (mut sent, mut distinct) = (0, one.system.len() + one.tools.concat().len() + one.turns.concat().len());
        for turn in 0..60 {
            let new = words(&mut random, 4000);
            distinct += new.len() + 200;
            one.turns.push(new);
            // Neither a restart nor another conversation in between makes it anew.
            if turn % 20 == 7 {
                bench.restart();
            }
            sent += one.body().len();
            bench.write(&one.body());
        }
        let stored = bench.number("SELECT sum(octet_length(text)) FROM pieces") as usize;
        // The last message goes with the end of the text while it is short.
        assert!(
            stored < distinct + 60 * PIECE_SLACK && stored * 8 < sent,
            "{dialect}: {stored} of {distinct}, {sent} sent"
        );
        bench.check();
    }
}

/// What is stored of a turn beside its words, with short pieces twice.
const PIECE_SLACK: usize = 600;

#[test]
fn pieces_are_removed_before_more_content_and_count_towards_its_size() {
    let mut random = Random::new(3);
    let mut bench = PromptBench::new();
    for _ in 0..300 {
        bench.write(&format!(r#"{{"messages":["{}"]}}"#, words(&mut random, 1).repeat(600)));
    }
    let size = "SELECT (SELECT coalesce(sum(octet_length(text)), 0) FROM pieces)
        + (SELECT sum(coalesce(octet_length(prompt), 0) + coalesce(octet_length(pieces), 0)) FROM content)";
    let all = bench.number(size);
    assert!(all > 300 * 9000);
    bench.clean(within(all as u64 / 2), row().start_ms, usize::MAX);
    let left = bench.number(size);
    assert!(left <= all / 2, "{left} of {all}");
    // Whole blocks, and no more of them than it takes.
    assert!(left + 65 * (all / 300) > all / 2, "{left} of {all}");
    assert_eq!(bench.number("SELECT max(id) FROM content"), 300, "the newest stay");
    let counted = bench.number(
        "SELECT (SELECT value FROM meta WHERE name = 'pieces_bytes') + (SELECT value FROM meta WHERE name = 'content_bytes')",
    );
    assert_eq!(counted, left);
}

#[test]
fn no_step_removes_more_pieces_than_its_share() {
    let mut bench = PromptBench::new();
    for number in 0..60 {
        bench.write(&format!("{number} {}", "x".repeat(100_000)));
    }
    let size = "SELECT coalesce(sum(octet_length(text)), 0) FROM pieces";
    bench.own.execute_batch("DELETE FROM content").expect("removed by hand");
    bench.recorder().pack(&bench.own).expect("packs");
    let mut cleaner = Cleaner::new(NONE);
    cleaner.begin(0);
    let (mut before, mut removals) = (bench.number(size), 0);
    while cleaner.is_at_work() {
        cleaner.step(&bench.own, bench.recorder(), row().start_ms).expect("a step");
        let now = bench.number(size);
        assert!(before - now <= crate::limits::CLEAN_BYTES_MAX);
        removals += i32::from(now < before);
        before = now;
    }
    assert!(before == 0 && removals >= 6, "{before} {removals}");
}

#[test]
fn content_without_pieces_is_looked_through_once_however_much_it_is() {
    let mut bench = PromptBench::new();
    for _ in 0..3 {
        bench.write(&"y".repeat(20_000));
    }
    bench.own.execute_batch("DELETE FROM content WHERE id < 3").expect("removed by hand");
    bench
        .own
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 4 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO content (id, prompt) SELECT i, 'short' FROM n",
        )
        .expect("written");
    bench.told.extend((4..=3000).map(|id| (id, "short".to_owned())));
    bench.clean(NONE, row().start_ms, usize::MAX);
    assert_eq!(bench.number("SELECT count(*) FROM pieces"), 1);
    bench.own.execute_batch("DELETE FROM content WHERE id = 3").expect("removed by hand");
    bench.clean(NONE, row().start_ms, usize::MAX);
    assert_eq!(bench.number("SELECT count(*) FROM pieces"), 0);
    assert!(bench.number("SELECT value FROM meta WHERE name = 'pieced_from'") > 2048);
    // Where ids are used again, what they say has pieces that stay.
    bench.own.execute_batch("DELETE FROM content; DELETE FROM requests WHERE id > 1").expect("removed by hand");
    bench.told.clear();
    assert_eq!(bench.write(&"z".repeat(20_000)), 2);
    bench.clean(NONE, row().start_ms, usize::MAX);
    bench.check();
    assert_eq!(bench.number("SELECT count(*) FROM pieces"), 1);
}

#[test]
fn two_processes_and_a_person_leave_every_prompt_whole() {
    let mut random = Random::new(9);
    let (mut bench, mut going_on) = (PromptBench::new(), Vec::new());
    let (other, other_memory) = (open(&bench.folder.join("metrics.db")), memory());
    for _ in 0..300 {
        let prompt = next_prompt(&mut random, &mut going_on);
        match random.below(20) {
            0 => {
                let mut cleaner = Cleaner::new(within(300_000));
                cleaner.begin(0);
                while cleaner.is_at_work() {
                    cleaner.step(&bench.own, &other, row().start_ms).expect("a step");
                }
            }
            // All but the newest, by hand.
            1 => bench.own.execute_batch("DELETE FROM content WHERE id % 5 < random() % 5").expect("removed"),
            2..=10 => drop(bench.write(&prompt)),
            _ => {
                let prompt_read = other_memory.read(prompt.as_bytes(), BYTES_MAX).prompt;
                let id = other.commit(said_as(prompt_read), |_| ()).expect("is written");
                bench.told.insert(id, prompt_text(prompt.as_bytes(), BYTES_MAX).expect("a text"));
            }
        }
        bench.check();
    }
}

#[test]
fn a_piece_that_is_missing_shows_as_such_and_is_written_again() {
    let mut random = Random::new(5);
    let mut bench = PromptBench::new();
    let one =
        Conversation { dialect: 0, turns: vec!["a".repeat(9000), "b".repeat(9000)], ..Conversation::new(&mut random) };
    bench.write(&one.body());
    bench.own.execute_batch("DELETE FROM pieces WHERE text LIKE '%bbb%'").expect("removed by hand");
    let expected = one
        .body()
        .replace(&format!(r#",{{"role":"user","content":"{}"}}"#, "b".repeat(9000)), "…[a piece is missing]…");
    let told = |bench: &PromptBench, id: i64| {
        let reader = Reader::open(&bench.folder.join("metrics.db")).expect("opens");
        reader.request(id).expect("answers").expect("is there").content.prompt.expect("a prompt").to_string()
    };
    assert_eq!(told(&bench, 1), expected);
    assert_eq!(bench.write(&one.body()), 2);
    assert_eq!((told(&bench, 1), told(&bench, 2)), (expected, one.body()));
    // Nor does another text take its place where it was the last.
    bench.own.execute_batch("DELETE FROM pieces").expect("removed by hand");
    let two = Conversation { turns: vec!["c".repeat(9000), "d".repeat(9000)], ..one };
    assert_eq!(bench.write(&two.body()), 3);
    assert!(!told(&bench, 1).contains("ccc") && told(&bench, 1).contains("missing"));
    assert_eq!(told(&bench, 3), two.body());
    bench.own.execute_batch("UPDATE content SET pieces = 'nonsense' WHERE id = 3").expect("written by hand");
    assert_eq!(told(&bench, 3), "…[a piece is missing]…");
}

#[test]
fn another_text_under_the_same_hash_is_never_taken_for_it() {
    let mut bench = PromptBench::new();
    let body = format!(r#"{{"messages":["{}","{}"]}}"#, "a".repeat(9000), "b".repeat(9000));
    bench.write(&body);
    bench.own.execute_batch("UPDATE pieces SET text = replace(text, 'b', 'c')").expect("written by hand");
    let told = bench.told.clone();
    for memory in [memory_of(&bench.own), memory()] {
        bench.memory = memory;
        let id = bench.write(&body);
        let prompt = format!("SELECT prompt FROM prompts WHERE id = {id}");
        assert!(bench.own.query_row(&prompt, [], |row| row.get::<_, String>(0)).expect("a text") == body);
    }
    bench.told = told;
}

#[test]
fn what_was_rolled_back_is_not_remembered() {
    let mut bench = PromptBench::new();
    let (one, two) = (format!("1{}", "x".repeat(10_000)), format!("2{}", "x".repeat(10_000)));
    let mut store = Store::open(&bench.folder.join("metrics.db"), DbSync::Normal).expect("opens");
    store.write(&[said("short")]).expect("writes");
    store
        .conn
        .execute_batch(
            "CREATE TEMP TRIGGER refuse BEFORE INSERT ON content WHEN NEW.id > 2
             BEGIN SELECT RAISE(ABORT, 'no more'); END",
        )
        .expect("made");
    store.write(&[said(&one), said(&two)]).expect_err("refused");
    store.conn.execute_batch("DROP TRIGGER refuse").expect("dropped");
    assert_eq!(store.write(&[said(&one), said(&two), said(&one)]), Ok(vec![2, 3, 4]));
    bench.told.extend([(1, "short".to_owned()), (2, one.clone()), (3, two), (4, one)]);
    bench.check();
    assert_eq!(bench.number("SELECT count(*) FROM pieces"), 2);
}

#[test]
fn what_is_known_outlives_what_the_keeper_does() {
    let bench = PromptBench::new();
    let mut store = Store::open(&bench.folder.join("metrics.db"), DbSync::Normal).expect("opens");
    let mut epoch = None;
    for number in 0..20 {
        store.write(&[said(&format!("{number}{}", "x".repeat(10_000)))]).expect("writes");
        let epoch = *epoch.get_or_insert(store.pieces.epoch());
        assert_eq!(store.pieces.epoch(), epoch, "nothing was forgotten");
        // The log begins anew behind each.
        bench.own.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).expect("moved");
        store.pack_all().expect("packs");
        bench.own.query_row("SELECT count(*) FROM prompts", [], |_| Ok(())).expect("reads");
    }
}

#[test]
fn a_short_prompt_is_stored_as_it_is() {
    let mut bench = PromptBench::new();
    bench.write(&"x".repeat(PIECED_BYTES_MIN - 1));
    bench.write(&"x".repeat(PIECED_BYTES_MIN));
    assert_eq!(bench.number("SELECT sum(id) FROM content WHERE prompt IS NOT NULL"), 1);
    assert_eq!(bench.number("SELECT sum(id) FROM content WHERE pieces IS NOT NULL"), 2);
    bench.check();
}

#[test]
fn memory_for_prompts_is_bounded() {
    let mut random = Random::new(11);
    let memory = memory();
    for number in 0..40 {
        let bytes = [9_000, 300_000, 900_000, PROMPTS_KNOWN_BYTES_MAX + 1][random.index(4)];
        let prompt = format!("{{\"messages\":[{}\"{number}\"]}}", "\"a message\",".repeat(bytes / 12));
        memory.read(prompt.as_bytes(), BYTES_MAX);
        check_memory(&memory);
    }
    memory.clear();
    assert_eq!(check_memory(&memory), 0);
}

#[test]
fn hashes_need_the_database_s_key() {
    let hashes = || {
        let mut bench = PromptBench::new();
        bench.write(&"x".repeat(PIECED_BYTES_MIN));
        let query = "SELECT hash FROM pieces WHERE octet_length(hash) = 16";
        bench.own.query_row(query, [], |row| row.get::<_, Vec<u8>>(0)).expect("one")
    };
    assert_ne!(hashes(), hashes());
}
