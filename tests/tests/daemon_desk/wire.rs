//! A wire between agent and Connector that can be cut, frozen, or ask for CONNECT first.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The wire. It listens until the test ends.
pub struct Wire {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    frozen: AtomicBool,
    /// How many tunnels were asked for.
    tunnels: AtomicUsize,
    target: Mutex<Option<SocketAddr>>,
    /// What a proxy wants to be shown, in Base64.
    credentials: Option<&'static str>,
    open: Mutex<Vec<TcpStream>>,
}

impl Wire {
    /// To `target`; or, without one, a proxy that has to be told by CONNECT.
    pub fn new(target: Option<SocketAddr>) -> io::Result<Self> {
        Self::start(target, None)
    }

    /// A proxy that wants to be shown these credentials, in Base64.
    pub fn with_credentials(credentials: &'static str) -> io::Result<Self> {
        Self::start(None, Some(credentials))
    }

    fn start(target: Option<SocketAddr>, credentials: Option<&'static str>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            frozen: AtomicBool::new(false),
            tunnels: AtomicUsize::new(0),
            target: Mutex::new(target),
            credentials,
            open: Mutex::new(Vec::new()),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || {
                    // What breaks is for the agent to notice.
                    let _ = carry(stream, &state);
                });
            }
        });
        Ok(Self { address, state })
    }

    /// From now on nothing arrives any more, and nobody is told.
    pub fn freeze(&self, frozen: bool) {
        self.state.frozen.store(frozen, Ordering::SeqCst);
    }

    /// Cuts every connection there is.
    pub fn cut(&self) {
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn tunnels(&self) -> usize {
        self.state.tunnels.load(Ordering::SeqCst)
    }
}

fn carry(mut agent: TcpStream, state: &Arc<State>) -> io::Result<()> {
    let target = *state.target.lock().unwrap();
    let target = match target {
        Some(target) => target,
        None => {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                agent.read_exact(&mut byte)?;
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            if let Some(credentials) = state.credentials
                && !head.contains(&format!("\r\nProxy-Authorization: Basic {credentials}\r\n"))
            {
                return agent.write_all(b"HTTP/1.1 407 Who are you?\r\n\r\n");
            }
            let asked = head
                .strip_prefix("CONNECT ")
                .and_then(|rest| rest.split(' ').next())
                .and_then(|target| target.parse().ok());
            let Some(target) = asked else {
                return agent.write_all(b"HTTP/1.1 405 Only tunnels here\r\n\r\n");
            };
            state.tunnels.fetch_add(1, Ordering::SeqCst);
            agent.write_all(b"HTTP/1.1 200 Go ahead\r\nX-Via: test\r\n\r\n")?;
            target
        }
    };
    let connector = TcpStream::connect(target)?;
    let mut open = state.open.lock().unwrap();
    open.extend([agent.try_clone()?, connector.try_clone()?]);
    drop(open);
    for (mut from, mut to) in [
        (agent.try_clone()?, connector.try_clone()?),
        (connector, agent),
    ] {
        let state = Arc::clone(state);
        thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                while state.frozen.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(20));
                }
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}
