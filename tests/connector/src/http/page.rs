//! The page: agents, jobs and logs, live. It looks and changes nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;

use super::{Failure, Site};

/// The page, or the form that asks for the token.
pub async fn page(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    if site.logins.is_known(&headers) {
        file(
            "text/html; charset=utf-8",
            include_str!("../assets/page.html"),
        )
    } else {
        file(
            "text/html; charset=utf-8",
            include_str!("../assets/login.html"),
        )
    }
}

/// What fills the page. It holds nothing that is not public.
pub async fn script() -> Response {
    file(
        "text/javascript; charset=utf-8",
        include_str!("../assets/page.js"),
    )
}

/// What it looks like.
pub async fn style() -> Response {
    file(
        "text/css; charset=utf-8",
        include_str!("../assets/page.css"),
    )
}

/// `POST login` with `token=TOKEN`.
pub async fn login(State(site): State<Arc<Site>>, body: Body) -> Result<Response, Failure> {
    let read = tokio::time::timeout(Duration::from_secs(10), to_bytes(body, 1024)).await;
    let body = zeroize::Zeroizing::new(match read {
        Ok(Ok(body)) => body.to_vec(),
        _ => return Err(Failure::unauthorized()),
    });
    let token = std::str::from_utf8(&body).ok();
    let token = token.and_then(|body| body.strip_prefix("token="));
    if !token.is_some_and(|token| site.is_token(token.trim())) {
        return Err(Failure::unauthorized());
    }
    let Ok(Ok(cookie)) = site
        .logins
        .cookie()
        .map(|cookie| HeaderValue::from_str(&cookie))
    else {
        return Err(Failure::unavailable());
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static("/"));
    headers.insert(header::SET_COOKIE, cookie);
    Ok(response)
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    let headers: [(HeaderName, &'static str); 6] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
