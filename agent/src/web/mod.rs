//! The web server: metrics, health, and the page that an operator looks at first.
//!
//! `server` accepts connections within limits, `page` writes the page, this file says what is served where. There is no
//! authentication yet, so what names addresses is served on loopback only.

mod page;
mod server;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use ipnet::IpNet;

pub use server::{BindError, Listener, bind, serve};

use crate::engine::actor::{Engine, View};
use crate::engine::health::Health;
use crate::export::metrics;

/// How long a request may take; Prometheus gives up after 10 s by default.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a request's body; nothing here takes one.
const BODY_LIMIT: u64 = 8 * 1024;

/// What the handlers share.
#[derive(Debug)]
pub struct Site {
    /// Whether the daemon does its job.
    pub health: Arc<Health>,
    /// The capture thread, once it runs.
    pub engine: OnceLock<Engine>,
    observe: Mutex<Arc<[IpNet]>>,
}

impl Site {
    /// Of a daemon that has not started yet.
    #[must_use]
    pub fn new(health: Arc<Health>) -> Self {
        Self {
            health,
            engine: OnceLock::new(),
            observe: Mutex::new(Arc::new([])),
        }
    }

    /// Notes what the site file says is seen from here; nothing if it does not say.
    pub fn set_observe(&self, observe: Vec<IpNet>) {
        *self.observe.lock().unwrap_or_else(PoisonError::into_inner) = observe.into();
    }

    fn observe(&self) -> Arc<[IpNet]> {
        Arc::clone(&self.observe.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Who can reach a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// Programs of this host.
    Loopback,
    /// Anybody who has a route.
    Network,
}

impl Exposure {
    /// Of a listener on this address.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        if address.ip().to_canonical().is_loopback() {
            Self::Loopback
        } else {
            Self::Network
        }
    }
}

/// The routes of a listener. Beyond loopback only metrics and health are served: they name no address.
pub fn router(site: Arc<Site>, exposure: Exposure) -> Router {
    let open = Router::new()
        .route("/metrics", get(serve_metrics))
        .route("/-/healthy", get(healthy))
        .route("/-/ready", get(ready));
    let routes = match exposure {
        Exposure::Loopback => open.merge(
            Router::new()
                .route("/", get(index))
                .route("/style.css", get(style))
                .layer(middleware::from_fn(local_host)),
        ),
        Exposure::Network => open.route("/", get(refused_index)),
    };
    routes
        .with_state(site)
        .layer(middleware::from_fn(limits))
        .layer(middleware::map_response(harden))
}

async fn healthy() -> &'static str {
    "the daemon is running\n"
}

async fn ready(State(site): State<Arc<Site>>) -> Response {
    match site.health.ready() {
        Ok(()) => "traffic is being judged\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn view(site: &Site) -> Result<View, Response> {
    let unavailable =
        |reason: String| (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response();
    let Some(engine) = site.engine.get() else {
        return Err(unavailable("the capture is not attached yet".to_owned()));
    };
    engine
        .view()
        .await
        .map_err(|error| unavailable(error.to_string()))
}

async fn serve_metrics(State(site): State<Arc<Site>>) -> Response {
    let view = match view(&site).await {
        Ok(view) => view,
        Err(response) => return response,
    };
    let reload = site.health.reload();
    let observe = site.observe();
    // A large matrix takes a while, and the other connections must not wait for it.
    match tokio::task::spawn_blocking(move || metrics::text(&view, &observe, reload)).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> Response {
    tracing::error!(%error, "cannot write an answer");
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("cannot write the answer: {error}\n"),
    )
        .into_response()
}

async fn index(State(site): State<Arc<Site>>) -> Response {
    let view = match view(&site).await {
        Ok(view) => view,
        Err(response) => return response,
    };
    let ready = site.health.ready();
    let reload = site.health.reload();
    let observe = site.observe();
    let write = move || page::html(&view, &observe, &ready, reload, SystemTime::now());
    let html = match tokio::task::spawn_blocking(write).await {
        Ok(html) => html,
        Err(error) => return failed(&error),
    };
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (HeaderName::from_static("refresh"), "10"),
    ];
    (headers, html).into_response()
}

async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (headers, page::STYLE).into_response()
}

async fn refused_index() -> Response {
    (
        StatusCode::FORBIDDEN,
        "The page names addresses, so it is served on loopback listeners only; here are /metrics, /-/healthy and /-/ready.\n",
    )
        .into_response()
}

/// Refuses requests for a host name that somebody made point to loopback (DNS rebinding): a page of another site must
/// not read what this host sees.
async fn local_host(request: Request, next: Next) -> Response {
    if names_loopback(request.headers()) {
        next.run(request).await
    } else {
        (
            StatusCode::MISDIRECTED_REQUEST,
            "This page answers to localhost and to addresses, not to other host names.\n",
        )
            .into_response()
    }
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
    else {
        // HTTP/1.0 without a host can't come from a browser.
        return !headers.contains_key(header::HOST);
    };
    host.parse::<SocketAddr>().is_ok()
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .is_ok()
        || host
            .split(':')
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("localhost"))
}

/// Bounds what a request may cost.
async fn limits(request: Request, next: Next) -> Response {
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok())
        .unwrap_or(0);
    if announced > BODY_LIMIT {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Headers that every answer has.
async fn harden(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower_service::Service;

    use super::*;
    use crate::engine::actor::Start;
    use crate::engine::fake::Fake;
    use crate::engine::health::CaptureState;
    use crate::engine::policy;
    use crate::matrix::installed::{Installed, SlotDirectory};

    async fn site() -> Arc<Site> {
        Arc::new(Site::new(Arc::new(Health::default())))
    }

    fn run(site: &Site) {
        let policy = policy::load(&[], None, &[]).unwrap();
        let (capture, _) = Fake::new();
        let (engine, _) = Engine::start(Start {
            capture,
            matrix: Arc::new(Installed::new(policy.compiled, SlotDirectory::default())),
            interfaces: vec![crate::capture::Interface {
                index: 2,
                name: "eth0".to_owned(),
            }],
            needed: &|_| true,
            consumers: Vec::new(),
            health: Arc::clone(&site.health),
        })
        .unwrap();
        site.engine.set(engine).unwrap();
        site.health.matrix_loaded(SystemTime::now());
    }

    async fn ask(
        site: &Arc<Site>,
        exposure: Exposure,
        path: &str,
        host: &str,
    ) -> (u16, HeaderMap, String) {
        let request = Request::get(path)
            .header(header::HOST, host)
            .body(Body::empty())
            .unwrap();
        let response = router(Arc::clone(site), exposure)
            .call(request)
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 24).await.unwrap();
        (
            parts.status.as_u16(),
            parts.headers,
            String::from_utf8(bytes.to_vec()).unwrap(),
        )
    }

    #[tokio::test]
    async fn readiness_follows_the_capture() {
        let site = site().await;
        let local = Exposure::Loopback;
        assert_eq!(ask(&site, local, "/-/healthy", "localhost").await.0, 200);
        assert_eq!(ask(&site, local, "/-/ready", "localhost").await.0, 503);
        assert_eq!(ask(&site, local, "/metrics", "localhost").await.0, 503);
        run(&site);
        assert_eq!(ask(&site, local, "/-/ready", "localhost").await.0, 200);
        site.health
            .set_capture(CaptureState::Failed("out of paper".to_owned()));
        let (status, _, text) = ask(&site, local, "/-/ready", "localhost").await;
        assert_eq!(status, 503);
        assert!(text.contains("out of paper"));
        assert_eq!(ask(&site, local, "/-/healthy", "localhost").await.0, 200);
    }

    #[tokio::test]
    async fn the_page_is_for_loopback_only() {
        let site = site().await;
        run(&site);
        let (status, headers, html) = ask(&site, Exposure::Loopback, "/", "127.0.0.1:9871").await;
        assert_eq!(status, 200);
        assert!(html.contains("baseline-linux-host"));
        assert_eq!(headers["refresh"], "10");
        assert!(
            headers["content-security-policy"]
                .to_str()
                .unwrap()
                .starts_with("default-src 'none'")
        );
        assert_eq!(
            ask(&site, Exposure::Loopback, "/style.css", "localhost")
                .await
                .0,
            200
        );
        assert_eq!(ask(&site, Exposure::Network, "/", "10.0.0.1").await.0, 403);
        assert_eq!(
            ask(&site, Exposure::Network, "/metrics", "any.example")
                .await
                .0,
            200
        );
        // A name that was made to point to loopback.
        assert_eq!(
            ask(&site, Exposure::Loopback, "/", "evil.example:9871")
                .await
                .0,
            421
        );
        assert_eq!(
            ask(&site, Exposure::Loopback, "/", "[::1]:9871").await.0,
            200
        );
        assert_eq!(
            ask(&site, Exposure::Loopback, "/nothing", "localhost")
                .await
                .0,
            404
        );
    }

    #[test]
    fn knows_what_is_reachable_from_outside() {
        let check = |address: &str, expect| {
            assert_eq!(Exposure::of(address.parse().unwrap()), expect, "{address}");
        };
        check("127.0.0.1:1", Exposure::Loopback);
        check("127.8.0.1:1", Exposure::Loopback);
        check("[::1]:1", Exposure::Loopback);
        check("[::ffff:127.0.0.1]:1", Exposure::Loopback);
        check("0.0.0.0:1", Exposure::Network);
        check("[::]:1", Exposure::Network);
        check("192.0.2.1:1", Exposure::Network);
    }
}
