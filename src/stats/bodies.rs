//! `GET /stats/requests/{id}/body`: a request's body as it was sent, byte for byte, so that it can be sent again. Where
//! that is not known to be what is stored, it is told why.

use rusqlite::OptionalExtension;

use super::reader::Reader;
use crate::record::prompts::{PieceReader, StoredPrompt};
use crate::record::row::Replaced;

/// A request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// Every byte of it.
    AsSent(String),
    /// It cannot be given back.
    Lost(LostBody),
}

/// Why a body cannot be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostBody {
    /// There is no prompt: it was not kept, or is there no more.
    NotStored,
    /// Images and the like are a mark of their size.
    Payload,
    /// It was too long.
    Length,
    /// An earlier version stored it, and did not tell what it left out.
    NotKnown,
    /// A piece of it is missing.
    Piece,
}

impl Reader {
    /// The body of a request; `None`: there is no such request.
    pub fn body(&self, id: i64) -> rusqlite::Result<Option<RequestBody>> {
        let query = "SELECT outline IS NOT NULL, replaced, prompt, pieces
             FROM requests LEFT JOIN content ON content.id = requests.id WHERE requests.id = ?1";
        self.at_once(|| {
            let mut statement = self.conn.prepare_cached(query)?;
            let found = statement.query_row([id], |row| {
                let (has_outline, replaced): (bool, Option<String>) = (row.get(0)?, row.get(1)?);
                Ok((has_outline, replaced, StoredPrompt::read(row, 2)?))
            });
            let Some((has_outline, replaced, stored)) = found.optional()? else { return Ok(None) };
            let mut pieces = PieceReader::new(&self.conn);
            let body = pieces.join(stored)?;
            let is = |why: Replaced| replaced.as_deref() == Some(why.as_str());
            Ok(Some(match body {
                None => RequestBody::Lost(LostBody::NotStored),
                Some(_) if is(Replaced::Payload) => RequestBody::Lost(LostBody::Payload),
                Some(_) if is(Replaced::Length) => RequestBody::Lost(LostBody::Length),
                Some(_) if pieces.has_missed() => RequestBody::Lost(LostBody::Piece),
                Some(_) if !has_outline || replaced.is_some() => RequestBody::Lost(LostBody::NotKnown),
                Some(body) => RequestBody::AsSent(body),
            }))
        })
    }
}

/// A code for programs, and the same for a person.
pub(super) fn lost_body(id: i64, why: LostBody) -> (&'static str, String) {
    let (code, reason) = match why {
        LostBody::NotStored => (
            "body_not_stored",
            "it is not in the database. LOG_CONTENT=none keeps none, clean-up removes what is old or too much \
             (CONTENT_DAYS, CONTENT_MB_MAX), and rows that wait for a full disk lose theirs first.",
        ),
        LostBody::Payload => (
            "body_replaced",
            "images, audio, files or vectors in it, or bytes that are no text, are stored as a mark of their size.",
        ),
        LostBody::Length => ("body_cut", "it was longer than CONTENT_KB_MAX, and its middle was left out."),
        LostBody::NotKnown => {
            ("body_not_known", "it is not known whether what is stored is all of it, for an earlier version stored it.")
        }
        LostBody::Piece => ("body_incomplete", "a piece of it was removed from the database by another program."),
    };
    (code, format!("The body of request {id} cannot be given back as it was sent: {reason}"))
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::prompts::Outline;
    use crate::record::row::{Content, PromptShape, Row};
    use crate::record::store::{DbSync, Store};
    use crate::testing::{Folder, row};

    #[test]
    fn a_body_is_as_it_was_sent_or_it_is_told_why_not() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        let of = |prompt: Option<&str>, replaced, knows: bool| Row {
            content: Content {
                prompt: prompt.map(|text| text.to_owned().into()),
                output: None,
                shape: knows.then(|| Box::new(PromptShape { outline: Outline::default(), unkept: None, replaced })),
                ..Content::default()
            },
            ..row()
        };
        let long = format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]}}", "long ".repeat(5000));
        let rows = [
            of(Some("{ \"a\" : 1 }\n"), None, true),
            of(Some(&long), None, true),
            of(None, None, true),
            of(None, None, false),
            of(Some("[image]"), Some(Replaced::Payload), true),
            of(Some("{…"), Some(Replaced::Length), true),
            of(Some("{}"), None, false),
            of(Some(&long.replace("user", "tool")), None, true),
        ];
        store.write(&rows).expect("writes");
        let conn = Connection::open(&path).expect("opens");
        let removed = conn.execute("DELETE FROM pieces WHERE text LIKE '%tool%'", []).expect("removes");
        assert_eq!(removed, 1);
        let reader = Reader::open(&path).expect("opens");
        let lost = RequestBody::Lost;
        let expected = [
            RequestBody::AsSent("{ \"a\" : 1 }\n".to_owned()),
            RequestBody::AsSent(long),
            lost(LostBody::NotStored),
            lost(LostBody::NotStored),
            lost(LostBody::Payload),
            lost(LostBody::Length),
            lost(LostBody::NotKnown),
            lost(LostBody::Piece),
        ];
        for (id, expected) in (1..).zip(expected) {
            assert_eq!(reader.body(id).expect("answers"), Some(expected), "{id}");
        }
        assert_eq!(reader.body(9).expect("answers"), None);
    }
}
