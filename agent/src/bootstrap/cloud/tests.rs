use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, thread};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ce_platform::Platform;

use super::super::{BootstrapError, Discovery, Place};
use crate::host::firmware;

const CONFIG: &str = "connectors = ['c.example']\ntoken = 's3cret'\n";

/// A metadata service that answers as it is told, and notes what it was asked.
struct Mock {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Request>>>,
}

/// The lines of a request, in lower case but for the first.
#[derive(Clone, Debug)]
struct Request(Vec<String>);

impl Request {
    fn line(&self) -> &str {
        &self.0[0]
    }

    fn has(&self, header: &str) -> bool {
        self.0.iter().any(|line| line == header)
    }
}

impl Mock {
    /// `answer` writes what it wants to; the number counts the requests from 0.
    fn start(answer: impl Fn(usize, &Request, &mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        // It ends with the tests.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(&stream).lines();
                let lines = lines
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty());
                let mut lines: Vec<_> = lines.collect();
                lines
                    .iter_mut()
                    .skip(1)
                    .for_each(|line| *line = line.to_ascii_lowercase());
                let request = Request(lines);
                let number = noted.lock().unwrap().len();
                noted.lock().unwrap().push(request.clone());
                answer(number, &request, &mut stream);
            }
        });
        Self { address, asked }
    }

    /// A machine of `platform` with this metadata service and a configuration file.
    fn search(&self, platform: Platform) -> Result<Discovery, BootstrapError> {
        let root = tempfile::tempdir().unwrap();
        firmware::tests::pretend(&root.path().join("sys"), platform);
        fs::create_dir_all(root.path().join("etc/ce-agent")).unwrap();
        fs::write(root.path().join("etc/ce-agent/config.toml"), "# file\n").unwrap();
        let place = Place {
            service: self.address,
            ..Place::in_tests(root.path())
        };
        place.search()
    }

    fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}

fn reply(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    // Whoever asked may have left.
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
}

fn text(discovery: &Discovery) -> &str {
    discovery.found.as_ref().unwrap().text.as_str()
}

/// Azure as it is documented.
fn azure(body: String) -> Mock {
    Mock::start(move |_, request, stream| {
        let is_right = request
            .line()
            .starts_with("GET /metadata/instance/compute/userData?")
            && request.line().contains("api-version=2021-01-01")
            && request.line().contains("format=text");
        match (is_right, request.has("metadata: true")) {
            (true, true) => reply(stream, "200 OK", "", body.as_bytes()),
            _ => reply(stream, "400 Bad Request", "", b"Bad request"),
        }
    })
}

/// AWS with IMDSv2 enforced: a token is good for one method and header only.
fn aws(data: Option<&'static str>) -> Mock {
    Mock::start(move |_, request, stream| {
        let line = request.line();
        if line == "PUT /latest/api/token HTTP/1.1" {
            match request.has("x-aws-ec2-metadata-token-ttl-seconds: 60") {
                true => reply(stream, "200 OK", "", b"tok=en"),
                false => reply(stream, "400 Bad Request", "", b""),
            }
        } else if line != "GET /latest/user-data HTTP/1.1" {
            reply(stream, "404 Not Found", "", b"");
        } else if !request.has("x-aws-ec2-metadata-token: tok=en") {
            reply(stream, "401 Unauthorized", "", b"");
        } else {
            match data {
                Some(data) => reply(stream, "200 OK", "", data.as_bytes()),
                None => reply(stream, "404 Not Found", "", b"<html>"),
            }
        }
    })
}

fn gcp(flavor: &'static str) -> Mock {
    Mock::start(move |_, request, stream| {
        let key = "GET /computeMetadata/v1/instance/attributes/ce-agent-config HTTP/1.1";
        match request.has("metadata-flavor: google") {
            false => reply(stream, "403 Forbidden", "", b""),
            true if request.line() == key => reply(stream, "200 OK", flavor, CONFIG.as_bytes()),
            true => reply(stream, "404 Not Found", flavor, b""),
        }
    })
}

#[test]
fn each_cloud_is_asked_as_it_wants_to_be() {
    let flavor = "Metadata-Flavor: Google\r\n";
    for (mock, platform) in [
        (azure(STANDARD.encode(CONFIG)), Platform::Azure),
        (aws(Some(CONFIG)), Platform::Aws),
        (gcp(flavor), Platform::Gcp),
    ] {
        let discovery = mock.search(platform).unwrap();
        assert_eq!(text(&discovery), CONFIG, "{platform:?}");
        for request in mock.asked() {
            assert!(request.has(&format!("host: {}", mock.address.ip())));
            assert!(!request.line().contains("http://"), "{request:?}");
        }
    }
}

#[test]
fn without_user_data_the_file_counts() {
    for (mock, platform) in [
        (azure(String::new()), Platform::Azure),
        (aws(None), Platform::Aws),
        (
            Mock::start(|_, _, stream| reply(stream, "404 Not Found", "", b"")),
            Platform::Gcp,
        ),
    ] {
        let discovery = mock.search(platform).unwrap();
        assert_eq!((text(&discovery), discovery.notes.len()), ("# file\n", 0));
    }
}

#[test]
fn user_data_for_cloud_init_is_told_and_passed_over() {
    let discovery = aws(Some("#cloud-config\n{}\n"))
        .search(Platform::Aws)
        .unwrap();
    assert_eq!(text(&discovery), "# file\n");
    assert_eq!(
        discovery.notes,
        ["the user data of AWS: this is a configuration of cloud-init"]
    );
}

#[test]
fn a_service_that_puts_off_is_asked_again() {
    for status in [
        "410 Gone",
        "429 Too Many Requests",
        "503 x",
        "404 Not Found",
    ] {
        let mock = Mock::start(move |number, _, stream| match number {
            0..3 => reply(stream, status, "", b""),
            _ => reply(stream, "200 OK", "", STANDARD.encode(CONFIG).as_bytes()),
        });
        let discovery = mock.search(Platform::Azure).unwrap();
        assert_eq!(text(&discovery), CONFIG, "{status}");
        assert_eq!(mock.asked().len(), 4);
    }
}

#[test]
fn a_service_that_never_answers_well_is_given_up_in_time() {
    type Misdeed = fn(usize, &Request, &mut TcpStream);
    let misdeeds: [(&str, Misdeed); 5] = [
        ("410 Gone", |_, _, stream| {
            reply(stream, "410 Gone", "", b"")
        }),
        ("no answer within", |_, _, _| {
            thread::sleep(Duration::from_millis(400));
        }),
        ("no answer within", |_, _, stream| {
            // A byte now and then, for ever.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n");
            for _ in 0..40 {
                let _ = stream.write_all(b"x");
                thread::sleep(Duration::from_millis(10));
            }
        }),
        ("invalid HTTP", |_, _, stream| {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n");
        }),
        ("does not answer", |_, _, stream| {
            // Headers without end.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            let line = format!("x-filler: {}\r\n", "x".repeat(1000));
            while stream.write_all(line.as_bytes()).is_ok() {}
        }),
    ];
    for (expected, misdeed) in misdeeds {
        let mock = Mock::start(misdeed);
        let began = Instant::now();
        let discovery = mock.search(Platform::Azure).unwrap();
        assert_eq!(text(&discovery), "# file\n");
        assert!(discovery.notes[0].contains(expected), "{discovery:?}");
        assert!(mock.asked().len() > 1, "{expected}");
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn nobody_who_is_not_there_is_waited_for_long() {
    let mock = Mock {
        // Nobody listens: the port was given back.
        address: TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap(),
        asked: Arc::default(),
    };
    for platform in [Platform::Azure, Platform::Aws, Platform::Gcp] {
        let discovery = mock.search(platform).unwrap();
        assert_eq!(text(&discovery), "# file\n");
        assert!(
            discovery.notes[0].contains("does not answer"),
            "{discovery:?}"
        );
    }
}

#[test]
fn what_is_told_wrongly_is_an_error_and_never_the_files_turn() {
    let huge = |_: usize, _: &Request, stream: &mut TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'A'; 65536]).is_ok() {}
    };
    let moved = |_: usize, _: &Request, stream: &mut TcpStream| {
        reply(stream, "302 Found", "location: http://127.0.0.1/\r\n", b"");
    };
    for (mock, platform, expected) in [
        (
            azure("not base64: s3cret".into()),
            Platform::Azure,
            "Azure's user data is not Base64",
        ),
        (
            azure(STANDARD.encode(b"token = '\xff'")),
            Platform::Azure,
            "Azure's user data is no text in UTF-8",
        ),
        (
            Mock::start(huge),
            Platform::Azure,
            "has more than 524288 bytes",
        ),
        (
            Mock::start(moved),
            Platform::Azure,
            "answered with 302 Found",
        ),
        (
            gcp("metadata-flavor: Other\r\n"),
            Platform::Gcp,
            "does not say `Metadata-Flavor: Google`",
        ),
        (
            Mock::start(|_, _, stream| reply(stream, "200 OK", "", b"to\nken")),
            Platform::Aws,
            "can't be sent back",
        ),
    ] {
        let error = mock.search(platform).unwrap_err();
        let text = crate::daemon::with_sources(&error);
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
        assert!(mock.asked().len() <= 2);
    }
}

#[test]
fn a_metadata_service_that_was_turned_off_is_no_error() {
    let mock = Mock::start(|_, _, stream| reply(stream, "403 Forbidden", "", b""));
    let discovery = mock.search(Platform::Aws).unwrap();
    assert_eq!(text(&discovery), "# file\n");
    assert!(discovery.notes[0].contains("refuses to tell (403 Forbidden)"));
}

#[test]
fn only_a_cloud_is_asked() {
    let mock = azure(STANDARD.encode(CONFIG));
    for platform in [Platform::Nutanix, Platform::Xenserver, Platform::Vsphere] {
        assert_eq!(text(&mock.search(platform).unwrap()), "# file\n");
    }
    assert!(mock.asked().is_empty());
}
