//! WebSockets: what both ends see. Without the proxy between, for a start: what the harness sends is what it reads.

use crate::harness::*;

#[test]
fn both_ends_read_the_frames_that_the_other_sends() {
    let upstream = Upstream::new();
    let (mut client, mut link) = websocket(upstream.address(), &upstream, "/llm");
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let frame = Frame::new(FIN | BINARY, vec![b'x'; length]);
        client.send(frame.clone().masked().bytes());
        assert_eq!(link.frame(), frame.clone().masked());
        link.send(frame.bytes());
        assert_eq!(client.frame(), frame);
    }
}

#[test]
fn a_message_may_come_in_fragments_with_other_frames_between() {
    let upstream = Upstream::new();
    let (mut client, mut link) = websocket(upstream.address(), &upstream, "/llm");
    let ping = Frame::new(FIN | PING, "here?").masked();
    for fragment in Frame::text("A message in fragments.").masked().in_fragments(7) {
        client.send([fragment.bytes(), ping.bytes()].concat());
    }
    assert_eq!(link.text_message(), "A message in fragments.");
    assert_eq!(link.frame(), ping);
    link.send(Frame::new(FIN | PONG, "here?").bytes());
    link.send(Frame::text("An answer.").bytes());
    assert_eq!(client.text_message(), "An answer.", "the pong is passed over");
    link.send(Frame::new(FIN | CLOSE, [0x03, 0xe9]).bytes());
    link.fin();
    assert_eq!(client.frame().opcode(), CLOSE);
    assert_eq!(client.rest(), b"");
}
