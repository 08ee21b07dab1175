use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::PATIENCE;

/// What the tests look at in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub id: i64,
    pub endpoint: String,
    pub model: String,
    pub outcome: String,
    pub http_status: Option<i64>,
    pub is_error: bool,
    pub error_message: Option<String>,
    pub was_streamed: bool,
    pub input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
    pub total_tokens: Option<i64>,
    pub request_id: Option<String>,
    pub prompt: Option<String>,
    pub output: Option<String>,
    pub requested_model: Option<String>,
    pub cached_tokens: Option<i64>,
    pub finish_reason: Option<String>,
    pub client: Option<String>,
    pub key: Option<String>,
}

/// Rows as another program would read them while the proxy runs, oldest first.
pub fn rows_of(database: &Path) -> Vec<Row> {
    let connection = open(database);
    let columns = "id, endpoint, model, outcome, http_status, is_error, error_message, was_streamed, input_tokens, \
                   output_tokens, total_tokens, request_id, prompts.prompt, output, requested_model, cached_tokens, finish_reason, client, key";
    let query =
        format!("SELECT {columns} FROM requests LEFT JOIN content USING (id) LEFT JOIN prompts USING (id) ORDER BY id");
    let mut statement = connection.prepare(&query).expect("the documented columns");
    let rows = statement.query_map([], |row| {
        Ok(Row {
            id: row.get(0)?,
            endpoint: row.get(1)?,
            model: row.get(2)?,
            outcome: row.get(3)?,
            http_status: row.get(4)?,
            is_error: row.get(5)?,
            error_message: row.get(6)?,
            was_streamed: row.get(7)?,
            input_tokens: row.get(8)?,
            output_tokens: row.get(9)?,
            total_tokens: row.get(10)?,
            request_id: row.get(11)?,
            prompt: row.get(12)?,
            output: row.get(13)?,
            requested_model: row.get(14)?,
            cached_tokens: row.get(15)?,
            finish_reason: row.get(16)?,
            client: row.get(17)?,
            key: row.get(18)?,
        })
    });
    rows.expect("a readable table").collect::<Result<_, _>>().expect("the documented types")
}

/// One number out of the database.
pub fn count_of(database: &Path, query: &str) -> i64 {
    open(database).query_row(query, [], |row| row.get(0)).expect("a number")
}

fn open(database: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags).expect("a database");
    connection.busy_timeout(PATIENCE).expect("an open database");
    connection
}
