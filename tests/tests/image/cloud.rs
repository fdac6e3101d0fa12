//! A cloud as a machine sees it: what the firmware says, and the metadata service at its address.
//!
//! ```text
//!  guest --> 169.254.169.254:80, in qemu's network --> a shell for each connection --> this process
//! ```
//!
//! The services turn away what the real ones turn away: questions without their header, tokens that
//! they have not given out.
//!
//! Sources: "Azure Instance Metadata Service" (Microsoft Learn), "Use IMDSv2" (Amazon EC2 user guide),
//! "About VM metadata" (Compute Engine documentation).

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::machine::Plan;

/// Under this address a machine in a cloud finds the host.
pub const HOST_IN_CLOUD: &str = "169.254.0.2";

/// Whose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    Aws,
    Azure,
    Gcp,
}

/// A cloud of one machine.
pub struct Cloud {
    owner: Owner,
    service: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

/// The lines of a request.
struct Question(Vec<String>);

struct Answer(&'static str, &'static str, String);

impl Cloud {
    /// One that keeps `data` for its machine.
    pub fn of(owner: Owner, data: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let service = listener.local_addr()?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let noted = log.clone();
        // It ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Who hangs up early has no answer.
                if let Ok(line) = serve(&stream, owner, &data)
                    && let Ok(mut noted) = noted.lock()
                {
                    noted.push(line);
                }
            }
        });
        Ok(Self {
            owner,
            service,
            log,
        })
    }

    /// What was asked and how it was answered, a line for each: `GET /path 200 OK`.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().map(|log| log.clone()).unwrap_or_default()
    }

    /// The same machine in this cloud.
    pub fn with(&self, plan: Plan) -> Plan {
        let firmware = match self.owner {
            Owner::Aws => &["type=1,manufacturer=Amazon EC2,product=m7i.large"][..],
            Owner::Azure => &[
                "type=1,manufacturer=Microsoft Corporation,product=Virtual Machine",
                "type=3,asset=7783-7084-3265-9085-8269-3286-77",
            ],
            Owner::Gcp => &["type=1,manufacturer=Google,product=Google Compute Engine"],
        };
        let plan = plan.network(&self.network());
        firmware
            .iter()
            .fold(plan, |plan, words| plan.firmware(words))
    }

    fn network(&self) -> String {
        let port = self.service.port();
        // A comma of the command's own would be doubled; it has none.
        let pipe = format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3 & cat >&3; wait'");
        format!(
            "user,net=169.254.0.0/16,host={HOST_IN_CLOUD},dns=169.254.0.3,dhcpstart=169.254.0.15,\
             guestfwd=tcp:169.254.169.254:80-cmd:{pipe}"
        )
    }
}

/// Answers one question, and tells which.
fn serve(stream: &TcpStream, owner: Owner, data: &str) -> Result<String> {
    let mut lines = BufReader::new(stream).lines();
    let mut asked = Vec::new();
    loop {
        let line = lines.next().context("cut short")??;
        if line.is_empty() {
            break;
        }
        asked.push(line);
    }
    let question = Question(asked);
    let Answer(status, headers, body) = match owner {
        Owner::Aws => aws(&question, data),
        Owner::Azure => azure(&question, data),
        Owner::Gcp => gcp(&question, data),
    };
    let length = body.len();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    Ok(format!(
        "{} {} {status}",
        question.word(0),
        question.word(1)
    ))
}

impl Question {
    fn word(&self, number: usize) -> &str {
        let first = self.0.first().map(String::as_str).unwrap_or_default();
        first.split(' ').nth(number).unwrap_or_default()
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.0.iter().skip(1).any(|line| {
            line.split_once(':')
                .is_some_and(|(own, text)| own.eq_ignore_ascii_case(name) && text.trim() == value)
        })
    }
}

/// IMDSv2: a token first, for which a time to live has to be said.
fn aws(question: &Question, data: &str) -> Answer {
    const TOKEN: &str = "AQAEAM-token-of-the-service==";
    let is_valid = question.has("X-aws-ec2-metadata-token", TOKEN);
    match (question.word(0), question.word(1)) {
        ("PUT", "/latest/api/token")
            if question.has("X-aws-ec2-metadata-token-ttl-seconds", "60") =>
        {
            Answer("200 OK", "", TOKEN.into())
        }
        ("PUT", "/latest/api/token") => Answer("400 Bad Request", "", String::new()),
        ("GET", "/latest/user-data") if is_valid => Answer("200 OK", "", data.into()),
        ("GET", _) if !is_valid => Answer("401 Unauthorized", "", String::new()),
        _ => Answer("404 Not Found", "", String::new()),
    }
}

fn azure(question: &Question, data: &str) -> Answer {
    let path = "/metadata/instance/compute/userData?api-version=2021-01-01&format=text";
    match (question.has("Metadata", "true"), question.word(1) == path) {
        (true, true) => Answer("200 OK", "", STANDARD.encode(data)),
        (true, false) => Answer("404 Not Found", "", String::new()),
        (false, _) => Answer("400 Bad Request", "", String::new()),
    }
}

fn gcp(question: &Question, data: &str) -> Answer {
    let flavor = "Metadata-Flavor: Google\r\n";
    let path = "/computeMetadata/v1/instance/attributes/ce-agent-config";
    match (
        question.has("Metadata-Flavor", "Google"),
        question.word(1) == path,
    ) {
        (true, true) => Answer("200 OK", flavor, data.into()),
        (true, false) => Answer("404 Not Found", flavor, String::new()),
        (false, _) => Answer("403 Forbidden", "", String::new()),
    }
}
