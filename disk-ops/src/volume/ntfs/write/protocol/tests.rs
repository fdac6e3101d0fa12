use std::io::Cursor;

use proptest::prelude::*;

use super::*;

fn samples() -> Vec<Request<'static>> {
    let mut samples = vec![
        Request::Hello {
            library: "2022.10.3".into(),
            confinement: 0xFF,
        },
        Request::Read {
            offset: u64::MAX,
            length: 1,
        },
        Request::Content {
            offset: 7,
            length: MAX_TRANSFER,
        },
        Request::Write {
            offset: 512,
            bytes: &[1, 2, 3],
        },
        Request::Sync,
        Request::Done(Answer::Mounted),
        Request::Done(Answer::Unmounted),
    ];
    for outcome in [
        EditOutcome::Unchanged,
        EditOutcome::Created,
        EditOutcome::Overwritten,
        EditOutcome::Replaced,
        EditOutcome::Changed,
        EditOutcome::Deleted(9),
    ] {
        samples.push(Request::Done(Answer::Applied(outcome)));
    }
    for step in Step::ALL {
        samples.push(Request::Done(Answer::Failed {
            step,
            errno: 28,
            message: "no räum".into(),
        }));
    }
    samples
}

fn payload_of(request: &Request<'_>) -> Vec<u8> {
    let mut payload = Vec::new();
    request.encode(&mut payload);
    payload
}

#[test]
fn requests_arrive_as_they_were_sent() {
    let mut link = Link::new(Cursor::new(Vec::new()));
    for request in samples() {
        link.send(request.kind(), |out| {
            request.encode(out);
            Ok::<(), io::Error>(())
        })
        .unwrap();
    }
    let mut link = Link::new(Cursor::new(link.transport().get_ref().clone()));
    for request in samples() {
        let frame = link.receive().unwrap();
        assert_eq!(Request::decode(&frame).unwrap(), request);
    }
    assert!(matches!(link.receive(), Err(LinkError::Io(_))));
}

#[test]
fn a_message_that_is_cut_or_too_long_is_refused() {
    for request in samples() {
        let (kind, mut payload) = (request.kind(), payload_of(&request));
        // A write without its last bytes is a shorter write; what it must have is a byte.
        let whole = match &request {
            Request::Write { .. } => 9,
            _ => payload.len(),
        };
        for cut in 0..whole {
            let frame = Frame {
                kind,
                payload: &payload[..cut],
            };
            assert!(Request::decode(&frame).is_err(), "{request:?} cut at {cut}");
        }
        let is_write = matches!(request, Request::Write { .. });
        payload.resize(
            if is_write {
                MAX_TRANSFER as usize + 9
            } else {
                payload.len() + 1
            },
            0,
        );
        let frame = Frame {
            kind,
            payload: &payload,
        };
        assert!(Request::decode(&frame).is_err(), "{request:?} with more");
    }
}

fn header(magic: &[u8; 4], version: u16, sequence: u32, length: u32) -> Vec<u8> {
    let mut frame = vec![0; HEADER];
    write_header(&mut frame, SYNC, sequence, length);
    frame[..4].copy_from_slice(magic);
    frame[4..6].copy_from_slice(&version.to_le_bytes());
    frame
}

#[test]
fn a_header_that_is_wrong_in_any_field_ends_the_conversation() {
    let error = |frame: Vec<u8>| match Link::new(Cursor::new(frame)).receive() {
        Err(LinkError::Protocol(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(
        Link::new(Cursor::new(header(b"CENW", 1, 0, 0)))
            .receive()
            .is_ok()
    );
    let magic = error(header(b"HTTP", 1, 0, 0));
    assert!(matches!(magic, ProtocolError::Magic { .. }), "{magic}");
    assert_eq!(
        error(header(b"CENW", 2, 0, 0)),
        ProtocolError::Version { found: 2 }
    );
    let expected = ProtocolError::Sequence {
        found: 1,
        expected: 0,
    };
    assert_eq!(error(header(b"CENW", 1, 1, 0)), expected);
    // Refused before anything is allocated or read.
    let long = ProtocolError::TooLong { found: u32::MAX };
    assert_eq!(error(header(b"CENW", 1, 0, u32::MAX)), long);
}

proptest! {
    #[test]
    fn what_is_taken_is_what_would_have_been_sent(kind in 0u16..8, payload: Vec<u8>) {
        let frame = Frame { kind, payload: &payload };
        if let Ok(request) = Request::decode(&frame) {
            prop_assert_eq!(request.kind(), kind);
            prop_assert_eq!(payload_of(&request), payload);
        }
    }
}
