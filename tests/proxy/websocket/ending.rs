//! How a WebSocket ends, and what that means for what goes on there.

use super::*;

#[test]
fn each_side_may_end_its_own_and_the_other_goes_on() {
    for client_first in [true, false] {
        let Open { mut client, mut link, proxy, upstream: _upstream } = Open::at("/llm");
        let (last, more) = (Frame::new(FIN | BINARY, "the last"), Frame::new(FIN | BINARY, vec![b'm'; 1_000_000]));
        if client_first {
            client.send(last.clone().masked().bytes());
            client.half_close();
            assert_eq!(link.rest(), last.masked().bytes());
            link.send(more.bytes());
            assert_eq!(client.frame(), more);
            link.fin();
            assert!(!client.is_reset());
        } else {
            link.send(last.bytes());
            link.fin();
            assert_eq!(client.rest(), last.bytes());
            client.send(more.clone().masked().bytes());
            assert_eq!(link.frame(), more.masked());
            client.half_close();
            assert!(!link.is_reset());
        }
        wait_for_sockets(&proxy, "0");
        assert_eq!(proxy.rows(), []);
    }
}

#[test]
fn both_may_close_it_as_websockets_do() {
    let Open { mut client, mut link, proxy, upstream: _upstream } = Open::welcome(&[]);
    let close = Frame::new(FIN | CLOSE, [0x03, 0xe8]);
    client.send(close.clone().masked().bytes());
    assert_eq!(link.frame(), close.clone().masked());
    link.send(close.bytes());
    link.fin();
    assert_eq!(client.frame(), close);
    client.half_close();
    assert!(!client.is_reset() && !link.is_reset());
    wait_for_sockets(&proxy, "0");
}

/// How a side dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// In good order.
    Fin,
    /// By a reset.
    Reset,
}

#[test]
fn a_client_that_dies_inside_a_frame_has_left() {
    for death in [Death::Fin, Death::Reset] {
        let mut open = Open::welcome(&[]);
        open.predicting(1);
        let frame = Frame::text(&told(1, r#"{"type":"cancel"}"#)).masked().bytes();
        let half = &frame[..frame.len() / 2];
        open.client.send(half);
        assert_eq!(open.link.exactly(half.len()), half);
        match death {
            Death::Fin => open.client.leave(),
            Death::Reset => {
                open.link.send(ping().bytes());
                open.client.reset();
            }
        }
        // In good order or not: the other side sees which.
        assert_eq!(open.link.is_reset(), matches!(death, Death::Reset), "{death:?}");
        let row = open.proxy.wait_for_rows(1).remove(0);
        assert_eq!(
            (row.outcome.as_str(), row.is_error, counts(&row)),
            ("client_closed", false, [None; 4]),
            "{death:?}"
        );
        assert_eq!(row.output.as_deref(), Some("Hel"));
        wait_for_sockets(&open.proxy, "0");
    }
}

#[test]
fn an_upstream_that_dies_inside_a_frame_has_cut_what_went_on() {
    for death in [Death::Fin, Death::Reset] {
        let mut open = Open::welcome(&[]);
        open.predicting(1);
        let frame = Frame::text(&success(1, "eosFound", 3)).bytes();
        let half = &frame[..frame.len() / 2];
        open.link.send(half);
        assert_eq!(open.client.exactly(half.len()), half);
        match death {
            Death::Fin => drop(open.link),
            Death::Reset => {
                open.client.send(ping().masked().bytes());
                open.link.reset();
            }
        }
        let was_reset = open.client.is_reset();
        assert_eq!(was_reset, matches!(death, Death::Reset), "{death:?}");
        // The row was there before the client saw the end.
        let row = open.proxy.row();
        assert_eq!((row.outcome.as_str(), row.is_error, counts(&row)), ("truncated", true, [None; 4]), "{death:?}");
        open.client.leave();
        wait_for_sockets(&open.proxy, "0");
    }
}

#[test]
fn the_counts_of_who_left_in_good_order_are_waited_for() {
    // A client that has closed its side may be told yet what its prediction took.
    let mut open = Open::welcome(&[]);
    open.predicting(1);
    open.client.half_close();
    assert_eq!(open.link.rest(), b"");
    let end = Frame::text(&success(1, "userStopped", 2));
    open.link.send(end.bytes());
    assert_eq!(open.client.frame(), end);
    let row = open.proxy.row();
    assert_eq!((row.outcome.as_str(), counts(&row)), ("client_closed", [Some(100), Some(2), Some(102), None]));
}

#[test]
fn what_a_client_left_is_not_cut_by_an_upstream_that_goes_then() {
    let mut open = Open::welcome(&[]);
    open.predicting(1);
    open.client.half_close();
    assert_eq!(open.link.rest(), b"");
    open.link.fin();
    assert!(!open.client.is_reset());
    assert_eq!(open.proxy.row().outcome, "client_closed");
}

#[test]
fn a_client_that_sends_nothing_more_is_not_predicted_for_for_ever() {
    let mut open = Open::welcome(&[]);
    open.predicting(1);
    open.client.half_close();
    assert_eq!(open.link.rest(), b"");
    assert_eq!(open.proxy.wait_for_rows(1)[0].outcome, "client_closed");
    wait_for_sockets(&open.proxy, "0");
}

#[test]
fn a_client_that_leaves_while_it_does_not_read_has_left() {
    let mut open = Open::welcome(&[]);
    open.predicting(1);
    open.link.fill(Frame::text(&fragment(1, &"x".repeat(10_000))).bytes());
    open.client.leave();
    open.link.wait_for_end();
    assert_eq!(open.proxy.wait_for_rows(1)[0].outcome, "client_closed");
    wait_for_sockets(&open.proxy, "0");
}

#[cfg(unix)]
mod stop {
    use super::*;

    fn going_away() -> Frame {
        Frame::new(FIN | CLOSE, [0x03, 0xe9])
    }

    #[test]
    fn an_idle_one_is_closed_and_the_proxy_ends() {
        let mut open = Open::welcome(&[]);
        open.predicting(1);
        open.answers(&success(1, "eosFound", 3));
        open.answers(&closed(1));
        open.proxy.signal("TERM");
        assert_eq!(open.client.frame(), going_away());
        assert!(!open.client.is_reset());
        open.link.wait_for_end();
        assert_eq!(open.proxy.wait().code(), Some(0));
        assert_eq!(open.proxy.row().outcome, "completed");
    }

    #[test]
    fn a_prediction_may_finish_before() {
        let mut open = Open::welcome(&[]);
        open.predicting(1);
        let (mut other, mut other_link) = websocket(open.proxy.address(), &open.upstream, "/system");
        open.proxy.signal("TERM");
        // The other goes on with nothing.
        assert_eq!(other.frame(), going_away());
        other_link.wait_for_end();
        open.answers(&fragment(1, "lo"));
        open.answers(&success(1, "eosFound", 3));
        open.answers(&closed(1));
        assert_eq!(open.client.frame(), going_away());
        assert_eq!(open.client.rest(), b"");
        assert_eq!(open.proxy.wait().code(), Some(0));
        let row = open.proxy.row();
        assert_eq!(
            (row.outcome.as_str(), row.output.as_deref(), row.total_tokens),
            ("completed", Some("Hello"), Some(103))
        );
    }

    #[test]
    fn a_model_may_finish_loading_before() {
        let mut open = Open::welcome(&[]);
        let asked = r#""creationParameter":{"identifier":"qwen3"}"#;
        open.asks(&format!(r#"{{"type":"channelCreate","endpoint":"getOrLoad","channelId":1,{asked}}}"#));
        let (mut other, mut other_link) = websocket(open.proxy.address(), &open.upstream, "/system");
        open.proxy.signal("TERM");
        // The other goes on with nothing.
        assert_eq!(other.frame(), going_away());
        other_link.wait_for_end();
        open.answers(&told(1, r#"{"type":"loadProgress","progress":0.5}"#));
        open.answers(&told(1, r#"{"type":"loadSuccess","info":{"identifier":"qwen3:2","instanceReference":"Ab12"}}"#));
        open.answers(&closed(1));
        assert_eq!(open.client.frame(), going_away());
        assert_eq!(open.client.rest(), b"");
        assert_eq!(open.proxy.wait().code(), Some(0));
    }

    #[test]
    fn one_that_outlasts_the_grace_is_called_off_and_its_row_says_so() {
        let mut open = Open::welcome(&[("SHUTDOWN_GRACE_S", "1")]);
        open.predicting(1);
        open.predicting(2);
        open.proxy.signal("TERM");
        assert_eq!(open.client.frame(), going_away());
        assert_eq!(open.client.rest(), b"");
        open.link.wait_for_end();
        assert_eq!(open.proxy.wait().code(), Some(0));
        let rows = open.proxy.rows();
        assert!(rows.len() == 2 && rows.iter().all(|row| row.outcome == "shutdown" && row.is_error), "{rows:#?}");
    }

    #[test]
    fn inside_a_frame_nothing_is_put() {
        let mut open = Open::welcome(&[("SHUTDOWN_GRACE_S", "1")]);
        let half = &Frame::new(FIN | BINARY, vec![b'x'; 1000]).bytes()[..500];
        open.link.send(half);
        assert_eq!(open.client.exactly(500), half);
        open.proxy.signal("TERM");
        assert_eq!(open.client.rest(), b"");
        assert_eq!(open.proxy.wait().code(), Some(0));
    }

    #[test]
    fn a_handshake_under_way_is_no_reason_to_wait_for_longer_than_the_grace() {
        let upstream = Upstream::new();
        let mut proxy = Proxy::with(&upstream, &[("SHUTDOWN_GRACE_S", "0")]);
        let (mut client, mut link) = asked(&proxy, &upstream, opening("/llm"));
        proxy.signal("TERM");
        link.wait_for_end();
        assert_eq!(client.reply().status(), 503);
        assert_eq!(proxy.wait().code(), Some(0));
    }
}
