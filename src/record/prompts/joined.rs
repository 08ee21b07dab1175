//! A prompt in the database as text again.

use rusqlite::{CachedStatement, Connection, Row};

/// Stands in a text for a piece that somebody has removed by hand, and for all of them where their list is none.
pub(in crate::record) const MISSING: &str = "…[a piece is missing]…";

/// A prompt as the columns `prompt` and `pieces` of its content have it.
#[derive(Debug, Default)]
pub struct StoredPrompt {
    whole: Option<String>,
    pieces: Option<String>,
}

impl StoredPrompt {
    /// The columns from this one on.
    pub fn read(row: &Row, column: usize) -> rusqlite::Result<StoredPrompt> {
        Ok(StoredPrompt { whole: row.get(column)?, pieces: row.get(column + 1)? })
    }
}

/// Puts prompts together.
pub struct PieceReader<'a> {
    conn: &'a Connection,
    piece: Option<CachedStatement<'a>>,
    has_missed: bool,
}

impl<'a> PieceReader<'a> {
    /// From this database.
    pub fn new(conn: &'a Connection) -> PieceReader<'a> {
        PieceReader { conn, piece: None, has_missed: false }
    }

    /// Whether a text has [`MISSING`] in the place of what was not found.
    pub fn has_missed(&self) -> bool {
        self.has_missed
    }

    /// The text; `None`: there is none.
    pub fn join(&mut self, prompt: StoredPrompt) -> rusqlite::Result<Option<String>> {
        let StoredPrompt { whole, pieces } = prompt;
        let Some(list) = pieces.filter(|_| whole.is_none()) else { return Ok(whole) };
        let Ok(ids) = serde_json::from_str::<Vec<i64>>(&list) else {
            self.has_missed = true;
            return Ok(Some(MISSING.to_owned()));
        };
        let piece = match &mut self.piece {
            Some(piece) => piece,
            None => self.piece.insert(self.conn.prepare_cached("SELECT text FROM pieces WHERE id = ?1")?),
        };
        let mut text = String::new();
        for id in ids {
            let mut found = piece.query([id])?;
            match found.next()? {
                Some(row) => text.push_str(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?),
                None => {
                    self.has_missed = true;
                    text.push_str(MISSING);
                }
            }
        }
        Ok(Some(text))
    }
}
