//! Which conversation a request says that it belongs to.

use serde::{Deserialize, Serialize};

/// What a request says of its conversation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Session {
    /// A field of its head names it.
    Header(String),
    /// A member of its body does.
    Body(String),
    /// It goes on where the reply of this id ended.
    Response(String),
}

/// Where a conversation's name comes from. As text in the column and JSON field `conversation_source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversationSource {
    /// A field of the request's head.
    Header,
    /// A member of its body.
    Body,
    /// The reply that it refers to.
    Response,
    /// The messages that it begins with.
    Prefix,
}

impl ConversationSource {
    /// Each with its text in the database and in JSON.
    const TABLE: [(ConversationSource, &str); 4] = [
        (ConversationSource::Header, "header"),
        (ConversationSource::Body, "body"),
        (ConversationSource::Response, "response"),
        (ConversationSource::Prefix, "prefix"),
    ];

    /// The text in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        ConversationSource::TABLE[self as usize].1
    }

    /// The one of this text.
    pub fn named(name: &str) -> Option<ConversationSource> {
        ConversationSource::TABLE.iter().find(|(_, known)| *known == name).map(|(source, _)| *source)
    }
}
