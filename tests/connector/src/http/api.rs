//! Jobs and agents as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::{Failure, Site, answer_json};
use crate::hub::Input;
use crate::ids::{AgentId, JobId};
use crate::request::Request;
use crate::store::{LogLine, Store, StoreError, Topic};
use crate::view::JobView;

type Answer = Result<Response, Failure>;

/// `POST images/$export` and its like.
pub async fn submit_image(
    State(site): State<Arc<Site>>,
    Path(call): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    site.check_token(&headers)?;
    let operation = CALLS.iter().find(|(name, _)| *name == call);
    let Some((_, operation)) = operation else {
        return Err(Failure::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "there is no such call",
        ));
    };
    accept(&site, Some(operation), query.as_deref(), body).await
}

/// `POST jobs`: the body says which operation.
pub async fn submit(
    State(site): State<Arc<Site>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    site.check_token(&headers)?;
    accept(&site, None, query.as_deref(), body).await
}

async fn accept(
    site: &Arc<Site>,
    operation: Option<&str>,
    query: Option<&str>,
    body: Body,
) -> Answer {
    let query = parameters(query, &["agent"])?;
    let target = query.get("agent").map(|agent| named::<AgentId>(agent));
    let target = target.transpose()?;
    let body = read(body).await?;
    let request = Request::parse(&body, operation)?;
    let ignored = request.ignored.clone();
    let (target, request) = blocking(site, move |site| {
        if let Some(target) = &target {
            let known = site.registry.agents().map_err(|error| internal(&error))?;
            if !known.iter().any(|(agent, _)| agent == target) {
                return Err(Failure::invalid(format!(
                    "agent: there is no agent `{target}`"
                )));
            }
        }
        if let Some(id) = &request.credential_id {
            site.wallet.credentials(id).map_err(|error| {
                Failure::invalid(format!("outputStorageLocation.credentialId: {error}"))
            })?;
        }
        Ok((target, request))
    })
    .await?;
    let submitted = site
        .hub
        .ask(|reply| Input::Submit(Box::new(request), target, reply))
        .await?;
    let id = submitted?;
    let mut response = answer_json(
        StatusCode::ACCEPTED,
        &json!({"id": id, "status": "pending", "ignoredFields": ignored}),
    );
    // A name of a job has no character that a header could not have.
    if let Ok(location) = HeaderValue::from_str(&format!("/jobs/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `GET jobs?pageSize=N&continuationToken=T`: the newest first.
pub async fn list(
    State(site): State<Arc<Site>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    site.check_reader(&headers)?;
    let query = parameters(query.as_deref(), &["pageSize", "continuationToken"])?;
    let size = number(&query, "pageSize", 100)?.clamp(1, 1000);
    let before = number(&query, "continuationToken", u64::MAX)?;
    let mut jobs = site.hub.ask(|reply| Input::Changes(0, reply)).await?.jobs;
    jobs.retain(|job| job.number < before);
    jobs.sort_by_key(|job| std::cmp::Reverse(job.number));
    let more = u64::try_from(jobs.len()).unwrap_or(u64::MAX) > size;
    jobs.truncate(usize::try_from(size).unwrap_or(usize::MAX));
    let next = jobs
        .last()
        .filter(|_| more)
        .map(|job| job.number.to_string());
    let page = json!({"pageSize": size, "items": jobs, "continuationToken": next});
    Ok(answer_json(StatusCode::OK, &page))
}

/// `GET jobs/ID`.
pub async fn show(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    site.check_reader(&headers)?;
    let id: JobId = named(&id)?;
    let view = site.hub.ask(|reply| Input::Show(id.clone(), reply)).await?;
    whole(&site, view.ok_or_else(|| unknown(&id))?).await
}

/// `POST jobs/ID/$cancel`.
pub async fn call(
    State(site): State<Arc<Site>>,
    Path((id, call)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    site.check_token(&headers)?;
    if call != "$cancel" {
        return Err(Failure::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "there is no such call",
        ));
    }
    let id: JobId = named(&id)?;
    let view = site.hub.ask(|reply| Input::Cancel(id, reply)).await??;
    let mut response = whole(&site, view).await?;
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// `POST agents/ID/$dismiss`: there is no more work for it, and its machine may be switched off.
pub async fn call_agent(
    State(site): State<Arc<Site>>,
    Path((agent, call)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    site.check_token(&headers)?;
    if call != "$dismiss" {
        return Err(Failure::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "there is no such call",
        ));
    }
    let agent: AgentId = named(&agent)?;
    let asked = agent.clone();
    let is_told = site.hub.ask(|reply| Input::Dismiss(asked, reply)).await?;
    if !is_told {
        return Err(Failure::new(
            StatusCode::CONFLICT,
            "InvalidRequest",
            format!("the agent `{agent}` is in no session"),
        ));
    }
    Ok(answer_json(StatusCode::ACCEPTED, &json!({"id": agent})))
}

/// `GET jobs/ID/logs?from=N`.
pub async fn job_logs(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    site.check_reader(&headers)?;
    let id: JobId = named(&id)?;
    let view = site.hub.ask(|reply| Input::Show(id.clone(), reply)).await?;
    view.ok_or_else(|| unknown(&id))?;
    logs(&site, Topic::Job(id), query.as_deref()).await
}

/// `GET agents/ID/logs?from=N`.
pub async fn agent_logs(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    site.check_reader(&headers)?;
    logs(&site, Topic::Agent(named(&id)?), query.as_deref()).await
}

async fn logs(site: &Arc<Site>, topic: Topic, query: Option<&str>) -> Answer {
    let query = parameters(query, &["from"])?;
    let from = number(&query, "from", 0)?;
    let lines = read_store(site, move |store| store.logs(&topic, from, LINES)).await?;
    let next = lines.last().map_or(from, |(at, _)| at + 1);
    let lines: Vec<LogLine> = lines.into_iter().map(|(_, line)| line).collect();
    Ok(answer_json(
        StatusCode::OK,
        &json!({"lines": lines, "next": next}),
    ))
}

/// `GET agents`: those who may connect, and those who did.
pub async fn agents(State(site): State<Arc<Site>>, headers: HeaderMap) -> Answer {
    site.check_reader(&headers)?;
    let seen = site.hub.ask(|reply| Input::Changes(0, reply)).await?.agents;
    let known = blocking(&site, |site| {
        site.registry.agents().map_err(|error| internal(&error))
    })
    .await?;
    let mut items = Vec::new();
    for (id, expires) in known {
        let view = seen.iter().find(|view| view.id == id);
        items.push(json!({"id": id, "certificateExpires": expires, "session": view}));
    }
    Ok(answer_json(StatusCode::OK, &json!({"items": items})))
}

/// A job with what was asked for and what came of it.
async fn whole(site: &Arc<Site>, view: JobView) -> Answer {
    let id = view.id.clone();
    let (request, result) = read_store(site, move |store| {
        Ok((store.request(&id)?, store.result(&id)?))
    })
    .await?;
    let mut value = serde_json::to_value(view).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        let result = result.unwrap_or_default();
        // Some clients of the orchestrator look for the artifacts in `additionalInfo`.
        let additional: Map<_, _> = [("artifacts".to_owned(), result.artifacts.clone().into())]
            .into_iter()
            .collect();
        fields.insert("parameters".into(), request.unwrap_or_default().into());
        fields.insert("artifacts".into(), result.artifacts.into());
        fields.insert("additionalInfo".into(), additional.into());
        fields.insert("warnings".into(), result.warnings.into());
        if let Some(error) = result.error {
            fields.insert("error".into(), json!(error));
        }
    }
    Ok(answer_json(StatusCode::OK, &value))
}

async fn read(body: Body) -> Result<Bytes, Failure> {
    match tokio::time::timeout(BODY_WAIT, to_bytes(body, MOST_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "InvalidRequest",
            format!("the body is cut off or longer than {MOST_BODY} bytes"),
        )),
        Err(_) => Err(Failure::new(
            StatusCode::REQUEST_TIMEOUT,
            "InvalidRequest",
            "the body did not come in time",
        )),
    }
}

async fn read_store<T: Send + 'static>(
    site: &Arc<Site>,
    read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    blocking(site, move |site| {
        read(&site.hub.store()).map_err(|error| internal(&error))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    site: &Arc<Site>,
    work: impl FnOnce(&Site) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let site = site.clone();
    let done = tokio::task::spawn_blocking(move || work(&site)).await;
    done.unwrap_or_else(|_| Err(Failure::unavailable()))
}

fn internal(error: &dyn std::error::Error) -> Failure {
    tracing::warn!(%error, "a request can't be answered");
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Failure::new(
        status,
        "Internal",
        "this can't be read now; the Connector's log says why",
    )
}

fn unknown(id: &JobId) -> Failure {
    crate::machine::Refusal::Unknown(id.clone()).into()
}

fn named<T: std::str::FromStr<Err = crate::ids::InvalidName>>(text: &str) -> Result<T, Failure> {
    text.parse()
        .map_err(|error: crate::ids::InvalidName| Failure::invalid(error.to_string()))
}

/// The parameters of a query; only those that are `known`. None of them needs escapes.
fn parameters<'q>(
    query: Option<&'q str>,
    known: &[&str],
) -> Result<BTreeMap<&'q str, &'q str>, Failure> {
    let mut found = BTreeMap::new();
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !known.contains(&name) || found.insert(name, value).is_some() {
            let name: String = name.chars().take(40).collect();
            return Err(Failure::invalid(format!("{name}: unknown, or there twice")));
        }
    }
    Ok(found)
}

fn number(query: &BTreeMap<&str, &str>, name: &str, default: u64) -> Result<u64, Failure> {
    match query.get(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| Failure::invalid(format!("{name}: is no whole number"))),
    }
}

/// The orchestrator's calls; its documentation has two names for one of them.
const CALLS: [(&str, &str); 7] = [
    ("$export", "export"),
    ("$prepare", "prepare"),
    ("$publish", "publish"),
    ("$prepareAndPublish", "prepareAndPublish"),
    ("$prepareAndPublishImage", "prepareAndPublish"),
    ("$convertToUefi", "convertToUefi"),
    ("$inspect", "inspect"),
];

const MOST_BODY: usize = 64 << 10;
const BODY_WAIT: Duration = Duration::from_secs(10);
const LINES: usize = 1000;
