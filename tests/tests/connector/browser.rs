//! A headless Chromium that is told what to do over a pipe (`--remote-debugging-pipe`): messages of
//! the DevTools protocol in JSON, each followed by a NUL.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ce_tests::tool::{CHROMIUM, MKFIFO, text};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::site::PATIENCE;

/// A browser with one page. It ends when this is dropped.
pub struct Browser {
    child: Child,
    commands: File,
    messages: Receiver<Value>,
    next: u64,
    session: String,
    /// What the page complained about.
    complaints: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// A browser that shows nothing yet.
    pub fn start() -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let (commands, answers) = (
            profile.path().join("commands"),
            profile.path().join("answers"),
        );
        for pipe in [&commands, &answers] {
            MKFIFO.run([pipe])?;
        }
        // Open at both ends, so that neither side waits for the other to open it.
        let open = |path| File::options().read(true).write(true).open(path);
        let (to, from) = (open(&commands)?, open(&answers)?);
        let child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<\"$COMMANDS\" 4>\"$ANSWERS\"", "sh"])
            .arg(CHROMIUM.path()?)
            .args([
                "--headless=new",
                "--remote-debugging-pipe",
                // It is shown one page, which is ours; and root has no sandbox.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
            ])
            .arg(format!(
                "--user-data-dir={}",
                text(&profile.path().join("profile"))?
            ))
            .env("COMMANDS", &commands)
            .env("ANSWERS", &answers)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("sh")?;
        let (tell, messages) = channel();
        thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut message = Vec::new();
            while from.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let parsed = serde_json::from_slice(&message);
                if parsed.is_ok_and(|parsed: Value| tell.send(parsed).is_err()) {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            child,
            commands: to,
            messages,
            next: 0,
            session: String::new(),
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach)?;
        let session = session["sessionId"].as_str().context("no session")?;
        browser.session = session.to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Goes to a page.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let opened = self.call("Page.navigate", json!({"url": url}))?;
        ensure!(opened.get("errorText").is_none(), "{url}: {opened}");
        Ok(())
    }

    /// The value of an expression in the page.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let call = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", call)?;
        if let Some(exception) = answer.get("exceptionDetails") {
            bail!("{expression}: {exception}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true. What fails while a page is being loaded counts as false.
    pub fn until(&mut self, expression: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.evaluate(expression) {
                Ok(Value::Bool(true)) => return Ok(()),
                _ if Instant::now() < until => sleep(Duration::from_millis(50)),
                other => {
                    let page = self.evaluate("document.documentElement.outerHTML");
                    bail!("{expression} is {other:?} in {page:?}");
                }
            }
        }
    }

    /// Exceptions and errors of the page so far: broken scripts, what its own policy forbids.
    pub fn complaints(&self) -> &[Value] {
        &self.complaints
    }

    fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        self.commands.write_all(message.to_string().as_bytes())?;
        self.commands.write_all(&[0])?;
        loop {
            let answer = self.messages.recv_timeout(PATIENCE);
            let mut answer = answer.with_context(|| format!("no answer to {method}"))?;
            match answer["method"].as_str() {
                Some("Runtime.exceptionThrown") => self.complaints.push(answer),
                Some("Log.entryAdded") if answer["params"]["entry"]["level"] == "error" => {
                    self.complaints.push(answer["params"]["entry"].take());
                }
                _ if answer["id"] == self.next => {
                    ensure!(answer.get("error").is_none(), "{method}: {answer}");
                    return Ok(answer["result"].take());
                }
                _ => {}
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
