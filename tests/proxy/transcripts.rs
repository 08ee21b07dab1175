//! Every transcript through the real binary: the client's bytes and the row, for each framing and for cuts.

use std::path::Path;

use crate::harness::*;

/// How upstream delimits the body.
const FRAMINGS: [&str; 3] = ["length", "chunks", "close"];
/// Bytes of one write of upstream; 0 is all at once.
const PIECES: [usize; 2] = [0, 61];

/// One file of `tests/transcripts`; its README says what the lines mean.
struct Transcript {
    name: String,
    head: String,
    body: Vec<u8>,
    seen: Vec<u8>,
    report: String,
}

impl Transcript {
    fn parse(name: String, text: &str) -> Transcript {
        let (head, rest) = text.split_once("--- body\n").expect("a body");
        let (rest, report) = rest.split_once("--- report\n").expect("a report");
        let mut parts = rest.split("--- removed\n");
        let body = parts.next().unwrap_or_default();
        let says = |line: &str| head.lines().any(|other| other == line);
        let body = if says("final-newline: no") { body.trim_end_matches('\n') } else { body };
        let ends = match (says("line-ends: crlf"), says("line-ends: cr")) {
            (true, _) => "\r\n",
            (_, true) => "\r",
            _ => "\n",
        };
        let mark = if says("bom: yes") { "\u{feff}" } else { "" };
        let body = format!("{mark}{}", body.replace('\n', ends));
        let (mut seen, mut from) = (body.clone(), 0);
        for removed in parts.map(|removed| removed.replace('\n', ends)) {
            from += seen[from..].find(&removed).expect("a part of the body");
            seen.replace_range(from..from + removed.len(), "");
        }
        Transcript { name, head: head.into(), body: body.into(), seen: seen.into(), report: report.into() }
    }

    fn all() -> Vec<Transcript> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
        let mut all = Vec::new();
        for entry in folder.read_dir().expect("the folder of transcripts") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "txt") {
                let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
                all.push(Transcript::parse(name, &std::fs::read_to_string(&path).expect("text")));
            }
        }
        all
    }

    fn says(&self, line: &str) -> bool {
        self.head.lines().any(|other| other == line)
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn route(&self) -> &str {
        self.field("route").expect("a route")
    }

    fn was_streamed(&self) -> bool {
        let told = self.field("streamed").map(|streamed| streamed == "yes");
        told.unwrap_or(self.is_stream() && !self.says("form: opaque"))
    }

    fn is_stream(&self) -> bool {
        !self.says("form: json")
    }

    /// What the client sends: it asks for usage itself unless the proxy shall.
    fn request(&self, number: usize, framing: &str, piece: usize) -> String {
        let options = if self.says("injected: yes") { "" } else { r#","stream_options":{"include_usage":true}"# };
        // What the proxy learns of one model it does not apply to another.
        let model = format!("{number} {framing} {piece}");
        let body = format!(r#"{{"model":"{model}","stream":{}{options}}}"#, self.is_stream());
        post(&format!("{}?{number}&{framing}&{piece}", self.route()), &body)
    }

    fn reply_head(&self, framing: &str) -> String {
        let usual = if self.is_stream() { "text/event-stream" } else { "application/json" };
        let types = match self.field("content-type") {
            None => vec![usual],
            Some("none") => vec![],
            Some(types) => types.split(" and ").collect(),
        };
        let types: String = types.iter().map(|it| format!("Content-Type: {it}\r\n")).collect();
        let status = self.field("status").unwrap_or("200");
        let encoding = if self.says("form: opaque") { "Content-Encoding: gzip\r\n" } else { "" };
        let framed = match framing {
            "length" => format!("Content-Length: {}\r\n", self.body.len()),
            "chunks" => "Transfer-Encoding: chunked\r\n".to_string(),
            _ => "Connection: close\r\n".to_string(),
        };
        format!("HTTP/1.1 {status} Said\r\n{types}{encoding}{framed}\r\n")
    }

    fn reported(&self, field: &str) -> Option<&str> {
        let mut lines = self.report.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(name, _)| *name == field).map(|(_, value)| value)
    }

    fn outcome(&self) -> &str {
        match (self.reported("error"), self.reported("truncated")) {
            _ if self.field("status").is_some_and(|status| status >= "400") => "upstream_error",
            (Some(_), _) => "error_in_reply",
            (None, Some(_)) => "truncated",
            (None, None) => "completed",
        }
    }

    fn check_row(&self, row: &Row, how: &str) {
        let count = |field: &str| self.reported(field).map(|value| value.parse().expect("a count"));
        assert_eq!(row.outcome, self.outcome(), "{how}");
        assert_eq!(row.input_tokens, count("input_tokens"), "{how}");
        assert_eq!(row.output_tokens, count("output_tokens"), "{how}");
        assert_eq!(row.total_tokens, count("total_tokens"), "{how}");
        assert_eq!(row.was_streamed, self.was_streamed(), "{how}");
        let error = row.error_message.as_ref().map(|words| format!("{words:?}"));
        let truncated = self.reported("truncated").is_some();
        assert!(truncated || error.as_deref() == self.reported("error"), "{how}: {error:?}");
        let id = row.request_id.as_ref().map(|id| format!("{id:?}"));
        assert_eq!(id.as_deref(), self.reported("id"), "{how}");
    }
}

#[test]
fn every_transcript_passes_untouched_and_leaves_its_row_whatever_frames_and_cuts_it() {
    let transcripts = std::sync::Arc::new(Transcript::all());
    let replies = transcripts.clone();
    let upstream = Upstream::answering(move |link, request| {
        let target = request.start_line().split(' ').nth(1).expect("a target").to_string();
        let mut said = target.split_once('?').expect("a query").1.split('&');
        let mut next = || said.next().expect("three words");
        let transcript = &replies[next().parse::<usize>().expect("a number")];
        let framing = next();
        let piece = match next().parse().expect("a number") {
            0 => usize::MAX,
            piece => piece,
        };
        let asks = request.json()["stream_options"]["include_usage"].as_bool();
        assert_eq!(asks, Some(true), "{}: somebody asked for usage", transcript.name);
        link.send(transcript.reply_head(framing));
        for bytes in transcript.body.chunks(piece.min(transcript.body.len().max(1))) {
            match framing {
                "chunks" => link.send([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()),
                _ => link.send(bytes),
            }
        }
        match framing {
            "chunks" => link.send(LAST_CHUNK),
            "close" => link.fin(),
            _ => {}
        }
    });
    let proxy = Proxy::before(&upstream);
    let mut asked = Vec::new();
    for (number, transcript) in transcripts.iter().enumerate() {
        for framing in FRAMINGS {
            for piece in PIECES {
                let how = format!("{}, {framing}, pieces of {piece}", transcript.name);
                let reply = proxy.connect().ask(transcript.request(number, framing, piece));
                let (came, expected) =
                    (String::from_utf8_lossy(&reply.body), String::from_utf8_lossy(&transcript.seen));
                assert_eq!(came, expected, "{how}");
                // Only where a close alone delimits the stream, a missing terminal event makes the reply incomplete.
                let cut = framing == "close" && transcript.reported("truncated").is_some();
                assert_eq!(reply.ended, if cut { Ended::Cut } else { Ended::Whole }, "{how}");
                asked.push((transcript, how));
            }
        }
    }
    let rows = proxy.rows();
    assert_eq!(rows.len(), asked.len());
    for ((transcript, how), row) in asked.iter().zip(&rows) {
        transcript.check_row(row, how);
    }
}
