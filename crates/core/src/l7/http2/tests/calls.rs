//! gRPC.

use super::*;

/// Messages of these lengths.
fn messages(lengths: &[usize]) -> Vec<u8> {
    let one = |length: &usize| [&[0][..], &(*length as u32).to_be_bytes(), &vec![0x55; *length]].concat();
    lengths.iter().flat_map(one).collect()
}

fn call(stream: u32, method: &str) -> Vec<u8> {
    let fields = [
        vec![0x83, 0x86],
        added(":path", method),
        added(":authority", "shop"),
        plain("content-type", "application/grpc+proto"),
        added("te", "trailers"),
    ];
    headers(stream, 0, &fields)
}

fn head(stream: u32) -> Vec<u8> {
    headers(stream, 0, &[vec![0x88], plain("content-type", "application/grpc")])
}

fn trailers(stream: u32, status: &str, message: &str) -> Vec<u8> {
    headers(stream, LAST, &[plain("grpc-status", status), plain("grpc-message", message)])
}

/// Alone, in a stream of messages, refused at once, and failing in the end.
fn calls() -> Vec<Turn> {
    let many = messages(&[10, 0, 300, 7]);
    let (one, two) = many.split_at(13);
    dialogue([
        ask([call(1, "/shop.Cart/Add"), data(1, LAST, &messages(&[12]))].concat()),
        answer([head(1), data(1, 0, &messages(&[5])), trailers(1, "0", "")].concat()),
        ask([call(3, "/shop.Cart/Watch"), data(3, 0, one)].concat()),
        answer([head(3), data(3, 0, one)].concat()),
        ask([data(3, frame::PADDED, &[&[2], two, &[0, 0]].concat()), data(3, LAST, b"")].concat()),
        answer([data(3, 0, two), trailers(3, "14", "no%20server at 'secret'%21")].concat()),
        ask([call(5, "/shop.Cart/Gone"), data(5, LAST, &messages(&[1]))].concat()),
        answer(headers(
            5,
            LAST,
            &[vec![0x88], plain("content-type", "application/grpc"), plain("grpc-status", "12")],
        )),
    ])
}

#[test]
fn a_call_goes_as_its_trailers_say() {
    assert_lines(
        &calls(),
        &[
            "grpc /shop.Cart/Add - OK 17/10 complete",
            "grpc /shop.Cart/Watch - UNAVAILABLE 337/337 complete",
            "grpc /shop.Cart/Gone - UNIMPLEMENTED 6/0 complete",
        ],
    );
    let exchanges = play(&PROTOCOL, &calls());
    let watch = &exchanges[1];
    for (attribute, expected) in [
        (Attribute::RpcSystemName, "grpc"),
        (Attribute::RpcMethod, "shop.Cart/Watch"),
        (Attribute::RpcResponseStatusCode, "UNAVAILABLE"),
        (Attribute::ErrorType, "UNAVAILABLE"),
        (Attribute::ServerAddress, "shop"),
    ] {
        assert_eq!(text(watch, attribute), expected, "{attribute:?}");
    }
    assert_eq!((watch.ok, watch.error.as_deref()), (Some(false), Some("no server at '?'!")));
    assert_eq!(number(watch, Attribute::RpcSentMessages), "4");
    assert_eq!(number(watch, Attribute::RpcReceivedMessages), "4");
    assert_eq!(exchanges[0].ok, Some(true));
}

#[test]
fn every_property_holds_for_calls() {
    harness::check(&PROTOCOL, &calls());
}

#[test]
fn a_hole_in_a_message_keeps_the_count_and_one_between_them_does_not() {
    let content = messages(&[100, 100]);
    for (hole, sent) in [(10..60, "2"), (103..107, "-"), (90..120, "-")] {
        let whole = [call(1, "/a.B/C"), data(1, LAST, &content)].concat();
        let begin = whole.len() - content.len();
        let mut played = Played::new(&PROTOCOL);
        played
            .data(TO_SERVER, &preface())
            .data(TO_SERVER, &whole[..begin + hole.start])
            .gap(TO_SERVER, hole.len() as u64, Gap::Lost)
            .data(TO_SERVER, &whole[begin + hole.end..])
            .data(TO_CLIENT, &[head(1), trailers(1, "0", "")].concat())
            .finish(End::Fin);
        assert_eq!(lines(&played.exchanges), ["grpc /a.B/C - OK 210/0 gap"]);
        assert_eq!(number(&played.exchanges[0], Attribute::RpcSentMessages), sent, "{hole:?}");
    }
}

#[test]
fn without_its_trailers_nobody_knows_how_a_call_went() {
    let mut turns =
        dialogue([ask(call(1, "/a.B/C")), answer([head(1), data(1, 0, &messages(&[1]))].concat())]);
    assert_lines(&turns, &["grpc /a.B/C - - -/6 truncated"]);
    turns.push(ask(frame(frame::RST_STREAM, 0, 1, &[0, 0, 0, 8])));
    assert_lines(&turns, &["grpc /a.B/C - CANCEL -/6 complete"]);
    // A proxy that knows nothing of calls.
    let refused = headers(1, LAST, &[plain(":status", "503")]);
    let turns = dialogue([ask([call(1, "/a.B/C"), data(1, LAST, b"")].concat()), answer(refused)]);
    assert_lines(&turns, &["grpc /a.B/C - 503 -/0 complete"]);
}

#[test]
fn what_may_have_been_a_call_is_not_said_to_have_gone_well() {
    let mut played = Played::late(&PROTOCOL);
    played
        .data(TO_SERVER, &[headers(7, 0, &[vec![0x83, 0x86, 0xc0, 0xbf, 0xbe]]), data(7, LAST, b"")].concat())
        .data(TO_CLIENT, &headers(7, 0, &[vec![0x88, 0xc0]]))
        .data(TO_CLIENT, &[data(7, 0, &messages(&[3])), headers(7, LAST, &[vec![0xbf, 0xbe]])].concat())
        .finish(End::Fin);
    assert_eq!(lines(&played.exchanges), ["POST - 200 -/8 midstream"]);
    assert_eq!(played.exchanges[0].ok, None);
}

/// What a client wrote out before is known by its number to the server alone. It is not
/// guessed; once it is written out again, it is known, and by its number, too.
#[test]
fn a_channel_joined_late_names_its_calls_once_they_are_written_out() {
    let by_number = |stream: u32, fields: &[u8]| {
        let head = headers(stream, 0, &[[&[0x83, 0x86], fields].concat()]);
        [head, data(stream, LAST, &messages(&[4]))].concat()
    };
    let answered = |stream, content: &[u8], status: &[u8]| {
        let head = headers(stream, 0, &[[&[0x88], content].concat()]);
        [head, data(stream, 0, &messages(&[8])), headers(stream, LAST, &[status.to_vec()])].concat()
    };
    let (content, good) = (added("content-type", "application/grpc"), added("grpc-status", "0"));
    let mut played = Played::late(&PROTOCOL);
    played
        // All but the method is what was said before; so is the answer.
        .data(TO_SERVER, &by_number(7, &[0xc0, 0xbf, 0xbe]))
        .data(TO_CLIENT, &answered(7, &[0xbf], &[0xbe]))
        // The answer says what it is. The newest entry has the lowest number.
        .data(TO_SERVER, &by_number(9, &[0xc0, 0xbf, 0xbe]))
        .data(TO_CLIENT, &answered(9, &content, &good))
        // The path is written out, and then told by its number.
        .data(TO_SERVER, &by_number(11, &[added(":path", "/shop.Cart/Add"), vec![0xc0, 0xbf]].concat()))
        .data(TO_CLIENT, &answered(11, &[0xbf], &[0xbe]))
        .data(TO_SERVER, &by_number(13, &[0xbe, 0xc0, 0xbf]))
        .data(TO_CLIENT, &answered(13, &[0xbf], &[0xbe]))
        .finish(End::Fin);
    assert_eq!(
        lines(&played.exchanges),
        [
            "POST - 200 9/13 midstream",
            "grpc  - OK 9/13 midstream",
            "grpc /shop.Cart/Add - OK 9/13 midstream",
            "grpc /shop.Cart/Add - OK 9/13 midstream",
        ]
    );
    assert_eq!(played.exchanges[0].ok, None, "it may have been a call that failed");
    let methods: Vec<_> =
        played.exchanges.iter().map(|one| text(one, Attribute::RpcMethod).to_owned()).collect();
    assert_eq!(methods, ["-", "-", "shop.Cart/Add", "shop.Cart/Add"]);
}

#[test]
fn other_content_is_no_call() {
    for (content, is_call) in [
        ("application/grpc", true),
        ("application/grpc+json", true),
        ("application/grpc;charset=utf-8", true),
        ("application/grpc-web+proto", false),
        ("application/json", false),
        ("application/grpcs", false),
    ] {
        let fields = [vec![0x83, 0x86], plain(":path", "/a.B/C"), plain("content-type", content)];
        let exchanges =
            play(&PROTOCOL, &dialogue([ask(headers(1, LAST, &fields)), answer(ok(1, "200", b""))]));
        assert_eq!(exchanges[0].protocol.is_some(), is_call, "{content}");
    }
}
