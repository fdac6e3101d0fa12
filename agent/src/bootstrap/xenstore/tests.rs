use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

type Nodes = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A xenstore with these nodes, as `docs/misc/xenstore.txt` has it. It sends an event of a watch and
/// an answer to somebody else before each of its answers, in small pieces.
fn xenstore(nodes: &Nodes) -> Store<UnixStream> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let nodes = Arc::clone(nodes);
    thread::spawn(move || {
        let mut header = [0; HEADER];
        while theirs.read_exact(&mut header).is_ok() {
            let header = Header::from_bytes(&header);
            let mut payload = vec![0; header.length as usize];
            theirs.read_exact(&mut payload).unwrap();
            let end = payload.iter().position(|byte| *byte == 0).unwrap();
            let path = String::from_utf8(payload[..end].to_vec()).unwrap();
            let (kind, answer) = match header.kind {
                2 => match nodes.lock().unwrap().get(&path) {
                    Some(content) => (2, content.clone()),
                    None => (16, b"ENOENT\0".to_vec()),
                },
                11 if path.starts_with("vm-data/") => {
                    nodes
                        .lock()
                        .unwrap()
                        .insert(path, payload[end + 1..].to_vec());
                    (11, b"OK\0".to_vec())
                }
                11 => (16, b"EACCES\0".to_vec()),
                _ => (16, b"ENOSYS\0".to_vec()),
            };
            let mut sent = message(15, 0, b"device\0token\0");
            sent.extend(message(2, header.request + 7, b"of another"));
            sent.extend(message(kind, header.request, &answer));
            for piece in sent.chunks(5) {
                theirs.write_all(piece).unwrap();
            }
        }
    });
    Store::new(ours)
}

fn message(kind: u32, request: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        kind,
        request,
        transaction: 0,
        length: payload.len() as u32,
    };
    [&header.to_bytes(), payload].concat()
}

/// A store that has said `said` before it was asked, and leaves if it is to.
fn talker(said: &[u8], leaves: bool) -> (Store<UnixStream>, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    theirs.write_all(said).unwrap();
    if leaves {
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
    }
    (Store::new(ours), theirs)
}

#[test]
fn nodes_are_read_and_written_among_messages_for_others() {
    let nodes = Nodes::default();
    let mut store = xenstore(&nodes);
    assert!(store.read(NODE).unwrap().is_none());
    store.write(NODE, b"log = 'x'\0\xff").unwrap();
    assert_eq!(&**store.read(NODE).unwrap().unwrap(), b"log = 'x'\0\xff");
    let error = store.write("control/shutdown", b"").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the xenstore says EACCES of control/shutdown"
    );
}

#[test]
fn a_header_has_four_numbers_of_the_machines_byte_order() {
    let header = Header {
        kind: 2,
        request: 3,
        transaction: 4,
        length: 5,
    };
    let expected = [2_u32, 3, 4, 5].map(u32::to_ne_bytes).concat();
    assert_eq!(header.to_bytes(), *expected);
    assert_eq!(Header::from_bytes(&header.to_bytes()), header);
}

#[test]
fn a_xenstore_that_is_wrong_or_silent_is_told() {
    let huge = message(2, 1, b"")
        .into_iter()
        .take(12)
        .chain(5000_u32.to_ne_bytes())
        .collect::<Vec<_>>();
    let others = message(15, 0, b"x").repeat(MOST_MESSAGES);
    for (said, leaves, expected) in [
        (&huge[..], false, "more than a message can have"),
        (&others, false, "messages that nobody asked for"),
        (&message(3, 1, b""), false, "another kind of message"),
        (&message(2, 1, b"abc")[..18], true, "can't be used"),
        (b"", true, "can't be used"),
        (
            &message(16, 1, b"\x1b[2J\0"),
            false,
            "the xenstore says \\x1b[2J of",
        ),
    ] {
        let (mut store, _theirs) = talker(said, leaves);
        let error = store.read(NODE).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_xenstore_that_says_nothing_is_not_waited_for() {
    let (mut store, theirs) = talker(b"", false);
    let began = Instant::now();
    let error = in_time(Duration::from_millis(50), move || store.read(NODE)).unwrap_err();
    let text = crate::daemon::with_sources(&error);
    assert!(text.contains("timed out"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(theirs);
}

#[test]
fn a_configuration_in_parts_is_read_and_its_token_wiped_from_all_of_them() {
    let nodes = Nodes::default();
    let put = |name: &str, text: &str| {
        let name = format!("vm-data/ce-agent-config{name}");
        nodes.lock().unwrap().insert(name, text.into());
    };
    put("", "log = 'x'\ntoken = 's3");
    put(".1", "cret'\nstate");
    put(".2", " = '/s'\n");
    put(".4", "not a part");
    let mut store = xenstore(&nodes);
    let (text, parts) = read_parts(&mut store).unwrap();
    assert_eq!(parts, [21, 11, 8]);
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert_eq!(text, "log = 'x'\ntoken = 's3cret'\nstate = '/s'\n");

    let left = "log = 'x'\n\nstate = '/s'\n";
    write_parts(&mut store, left, &parts).unwrap();
    assert_eq!(&**read_parts(&mut store).unwrap().0, left.as_bytes());
    let nodes = nodes.lock().unwrap();
    assert!(
        nodes
            .values()
            .all(|node| !node.windows(2).any(|two| two == b"s3"))
    );
    assert_eq!(nodes["vm-data/ce-agent-config.2"], b"");
}

#[test]
fn a_configuration_without_end_is_refused() {
    let nodes = Nodes::default();
    for number in 0..100 {
        nodes.lock().unwrap().insert(part_name(number), b"#".into());
    }
    let error = read_parts(&mut xenstore(&nodes)).unwrap_err();
    assert!(matches!(error, XenstoreError::TooMuch));
}

#[test]
fn what_does_not_fit_into_a_message_is_not_sent() {
    let (mut store, mut theirs) = talker(b"", false);
    let content = vec![0; LONGEST_PAYLOAD - NODE.len()];
    assert!(store.write(NODE, &content).is_err());
    let mut received = [0];
    assert!(theirs.read(&mut received).is_err());
}

proptest! {
    #[test]
    fn whatever_a_xenstore_says_there_is_an_answer_in_time(
        said in proptest::collection::vec(any::<u8>(), 0..200),
        kind in prop_oneof![Just(2_u32), Just(11), Just(15), Just(16), any::<u32>()],
        length in prop_oneof![0_u32..40, any::<u32>()],
    ) {
        let header = Header { kind, request: 1, transaction: 0, length };
        let said = [&header.to_bytes(), &said[..]].concat();
        let (mut store, _theirs) = talker(&said, true);
        let answer = store.read(NODE);
        if let Ok(Some(content)) = &answer {
            prop_assert!(kind == 2 && content.len() == length as usize);
        }
    }
}
