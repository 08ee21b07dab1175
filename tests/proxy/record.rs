//! Every generation leaves one row, and it is there before the client has the whole reply.

use crate::harness::*;

#[test]
fn the_row_is_there_when_the_reply_ends() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    client.ask(chat().replace("/v1/chat/completions", "/v1/chat/completions?key=secret"));
    let row = proxy.row();
    assert_eq!((row.endpoint.as_str(), row.model.as_str()), ("/v1/chat/completions", "m-1"));
    assert_eq!((row.outcome.as_str(), row.http_status, row.is_error), ("completed", Some(200), false));
    assert_eq!((row.input_tokens, row.output_tokens, row.total_tokens), (Some(17), Some(5), Some(22)));
    assert_eq!((row.request_id.as_deref(), row.was_streamed), (Some("chatcmpl-1"), false));
    assert!(row.prompt.expect("stored by default").contains("Hi"));
    assert_eq!(row.output.as_deref(), Some("Hello"));
    for count in 2..20 {
        client.ask(chat());
        assert_eq!(proxy.rows().len(), count);
    }
}
