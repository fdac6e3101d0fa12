//! What changes, as it changes: server-sent events for the page.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;

use super::{Failure, Site};
use crate::hub::Input;
use crate::ids::JobId;
use crate::store::Topic;

/// `GET events?job=ID`: `changes`, and `logs` of that job.
pub async fn events(
    State(site): State<Arc<Site>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    site.check_reader(&headers)?;
    let job = match query
        .as_deref()
        .and_then(|query| query.strip_prefix("job="))
    {
        None => None,
        Some(id) => match id.parse::<JobId>() {
            Ok(id) => Some(id),
            Err(error) => return Err(Failure::invalid(error.to_string())),
        },
    };
    let Ok(place) = site.viewers.clone().try_acquire_owned() else {
        let status = StatusCode::TOO_MANY_REQUESTS;
        return Err(Failure::new(status, "Busy", "too many pages are open"));
    };
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        watch(&site, &headers, job, &sender).await;
        drop(place);
    });
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(receiver)));
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

type Sender = mpsc::Sender<Result<Bytes, std::convert::Infallible>>;

/// Until the page is closed, its login ends, or the server does.
async fn watch(site: &Arc<Site>, headers: &HeaderMap, job: Option<JobId>, sender: &Sender) {
    let (mut version, mut next_line) = (0, 0);
    let mut quiet_since = Instant::now();
    while site.check_reader(headers).is_ok() {
        let Ok(changes) = site.hub.ask(|reply| Input::Changes(version, reply)).await else {
            return;
        };
        let mut text = String::new();
        if !(changes.jobs.is_empty() && changes.agents.is_empty()) {
            push(&mut text, "changes", &changes);
        }
        version = changes.version;
        if let Some(id) = job.clone() {
            let store = site.hub.store();
            let read = move || store.logs(&Topic::Job(id), next_line, LINES);
            if let Ok(Ok(lines)) = tokio::task::spawn_blocking(read).await
                && let Some((last, _)) = lines.last()
            {
                next_line = last + 1;
                push(&mut text, "logs", &lines);
            }
        }
        if text.is_empty() && quiet_since.elapsed() > QUIET {
            // Proxies and browsers give up on what says nothing.
            text.push_str(":\n\n");
        }
        if !text.is_empty() {
            quiet_since = Instant::now();
            if sender.send(Ok(text.into())).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = sleep(EVERY) => {}
            () = sender.closed() => return,
        }
    }
}

fn push(text: &mut String, event: &str, data: &impl Serialize) {
    // JSON has no line break outside of its texts, and none inside.
    if let Ok(data) = serde_json::to_string(data) {
        text.push_str(&format!("event: {event}\ndata: {data}\n\n"));
    }
}

const EVERY: Duration = Duration::from_millis(500);
const QUIET: Duration = Duration::from_secs(15);
const LINES: usize = 500;
