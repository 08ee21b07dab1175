//! Why a prompt had to be read anew, from where it no longer is what an earlier one was.

/// How a prompt goes on where an earlier one of the same model was, or why it does not. As text in the column and JSON
/// field `prefix_break`; packs have its place in [`PrefixBreak::TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrefixBreak {
    /// No earlier one is known that says any of it.
    First,
    /// It goes on where the earlier one ended: nothing is read twice.
    Continued,
    /// The system text is another one.
    SystemChanged,
    /// The tools are others.
    ToolsChanged,
    /// The same tools stand in another order.
    ToolsReordered,
    /// A message that was said before is another one.
    MessageEdited,
    /// Messages that were said before are left out.
    HistoryShortened,
    /// All is shared, but another conversation was between on that model.
    OtherConversation,
    /// All is shared, but the model was loaded for this request.
    ModelLoaded,
    /// All is shared, and was read anew all the same: the server's side.
    Unexpected,
}

impl PrefixBreak {
    const TABLE: [(PrefixBreak, &str); 10] = [
        (PrefixBreak::First, "first"),
        (PrefixBreak::Continued, "continued"),
        (PrefixBreak::SystemChanged, "system_changed"),
        (PrefixBreak::ToolsChanged, "tools_changed"),
        (PrefixBreak::ToolsReordered, "tools_reordered"),
        (PrefixBreak::MessageEdited, "message_edited"),
        (PrefixBreak::HistoryShortened, "history_shortened"),
        (PrefixBreak::OtherConversation, "other_conversation"),
        (PrefixBreak::ModelLoaded, "model_loaded"),
        (PrefixBreak::Unexpected, "unexpected"),
    ];

    /// All of them, in the order of the documentation.
    pub fn all() -> [PrefixBreak; 10] {
        PrefixBreak::TABLE.map(|(reason, _)| reason)
    }

    /// The text in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        PrefixBreak::TABLE[self as usize].1
    }

    /// The one of this text.
    pub fn named(name: &str) -> Option<PrefixBreak> {
        PrefixBreak::TABLE.iter().find(|(_, known)| *known == name).map(|(reason, _)| *reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_stands_in_its_line() {
        for (place, reason) in PrefixBreak::all().into_iter().enumerate() {
            assert_eq!((reason as usize, PrefixBreak::named(reason.as_str())), (place, Some(reason)));
        }
        assert_eq!(PrefixBreak::named(""), None);
    }
}
