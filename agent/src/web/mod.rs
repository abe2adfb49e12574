//! The web server: metrics, health, and the page that an operator looks at first.
//!
//! `server` accepts connections within limits, `door` and `gate` say who is let in by the web configuration (`config`), `page`
//! writes the page, `api` answers programs, this file says what is served where. What names addresses is served on loopback,
//! and elsewhere only to those who proved who they are, unless the configuration exposes it to anybody.

mod api;
mod buckets;
pub mod certificates;
mod client_certificates;
pub mod config;
mod connections;
mod door;
mod gate;
mod gzip;
mod page;
mod prints;
mod server;
mod source;
mod users;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

pub use door::{Asker, Door};
pub use gate::{Gate, GateError, Status};
pub use server::{BindError, Listener, bind, serve};

use crate::engine::actor::Engine;
use crate::engine::chronicle::Standing;
use crate::engine::evidence::Evidence;
use crate::engine::flows::Flows;
use crate::engine::health::Health;
use crate::export::metrics::{self, Beside};
use crate::export::own::{self, Own};
use crate::export::process::Process;
use crate::export::tally::Tally;
use crate::privilege;
use crate::site::tags::TagStatus;
use crate::verdict::Explainer;

/// How long a request may take; Prometheus gives up after 10 s by default.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a request's body; nothing here takes one.
const BODY_LIMIT: u64 = 8 * 1024;

/// What the handlers share.
#[derive(Debug)]
pub struct Site {
    /// Whether the daemon does its job.
    pub health: Arc<Health>,
    /// What the capture thread sees and what that comes to, once it runs.
    pub evidence: OnceLock<Arc<Evidence>>,
    /// Who is let in.
    pub gate: Arc<Gate>,
    tags: Mutex<Arc<TagStatus>>,
    /// Scrapes of the metrics.
    scrapes: Tally,
    /// Whose turn it is to look through the flow tables.
    turn: Arc<Semaphore>,
    /// Of the matrix that was in force last.
    explainer: Mutex<Option<Arc<Explainer>>>,
}

impl Site {
    /// Of a daemon that has not started yet.
    #[must_use]
    pub fn new(health: Arc<Health>, gate: Arc<Gate>) -> Self {
        Self {
            health,
            evidence: OnceLock::new(),
            gate,
            tags: Mutex::default(),
            scrapes: Tally::default(),
            turn: Arc::new(Semaphore::new(1)),
            explainer: Mutex::new(None),
        }
    }

    /// The capture thread, once it runs.
    fn engine(&self) -> Option<&Engine> {
        self.evidence.get().map(|evidence| evidence.engine())
    }

    /// Notes how the service tags in force were read.
    pub fn set_tags(&self, tags: TagStatus) {
        *self.tags.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(tags);
    }

    fn tags(&self) -> Arc<TagStatus> {
        Arc::clone(&self.tags.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Site {
    /// What explains these flows. Indexing a matrix takes a while, so the last one is kept.
    fn explainer(&self, flows: &Flows) -> Arc<Explainer> {
        let mut last = self
            .explainer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(explainer) if std::ptr::eq(explainer.installed(), &*flows.matrix) => {
                Arc::clone(explainer)
            }
            Some(_) | None => {
                let explainer = Arc::new(Explainer::new(Arc::clone(&flows.matrix)));
                *last = Some(Arc::clone(&explainer));
                explainer
            }
        }
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

/// What somebody gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Metrics and health: they name no address.
    Open,
    /// Everything, if it is asked for by an address or as localhost.
    Local,
    /// Everything.
    All,
}

/// The routes that lead to it.
pub fn router(site: Arc<Site>, access: Access) -> Router {
    let open = Router::new()
        .route("/metrics", get(serve_metrics))
        .route("/-/healthy", get(healthy))
        .route("/-/ready", get(ready));
    let closed = Router::new()
        .route("/", get(index))
        .route("/style.css", get(style))
        .route("/api/v1/flows", get(api::flows))
        .route("/api/v1/requirements", get(api::requirements))
        .route("/api/v1/draft", get(api::draft))
        .route("/draft", get(api::draft_text));
    let routes = match access {
        Access::Local => open.merge(closed.layer(middleware::from_fn(local_host))),
        Access::All => open.merge(closed),
        Access::Open => open
            .route("/", get(refused))
            .route("/api/{*path}", get(refused)),
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

async fn look(site: &Site) -> Result<Standing, Response> {
    let Some(evidence) = site.evidence.get() else {
        return Err(unavailable("the capture is not attached yet"));
    };
    evidence
        .look()
        .await
        .map_err(|error| unavailable(&error.to_string()))
}

fn unavailable(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
}

async fn serve_metrics(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    let begun = Instant::now();
    let scrapes = site.scrapes.spent();
    let standing = match look(&site).await {
        Ok(standing) => standing,
        Err(response) => return response,
    };
    let reload = site.health.reload();
    let evidence = site.evidence.get();
    let ledger = evidence.and_then(|evidence| evidence.ledger());
    let draft = evidence.and_then(|evidence| evidence.draft_counts());
    let sinks = evidence
        .map(|evidence| evidence.sinks())
        .unwrap_or_default();
    let tags = site.tags();
    let web = site.gate.status();
    let rounds = evidence.map(|evidence| evidence.rounds());
    let small = gzip::wanted(&headers);
    // A large matrix takes a while, and the other connections must not wait for it.
    let write = move || {
        let beside = Beside {
            ledger: ledger.as_ref(),
            draft: draft.as_ref(),
            reload,
            tags: &tags,
            sinks: &sinks,
            layers: privilege::layers(),
            web: &web,
        };
        let mut text = metrics::text(&standing, &beside);
        let own = Own {
            process: Process::now(),
            rounds: rounds.unwrap_or_default(),
            scrapes,
        };
        text.push_str(&own::text(&own));
        gzip::answer(text, metrics::CONTENT_TYPE, small)
    };
    let written = tokio::task::spawn_blocking(write).await;
    site.scrapes.add(begun.elapsed());
    match written {
        Ok(response) => response,
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
    let standing = match look(&site).await {
        Ok(standing) => standing,
        Err(response) => return response,
    };
    let ready = site.health.ready();
    let reload = site.health.reload();
    let draft = site
        .evidence
        .get()
        .and_then(|evidence| evidence.draft_counts());
    let write = move || page::html(&standing, draft.as_ref(), &ready, reload, SystemTime::now());
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

async fn refused() -> Response {
    (
        StatusCode::FORBIDDEN,
        "The page and the API name addresses, so without authentication they are served on loopback listeners only; here are \
         /metrics, /-/healthy and /-/ready. Users or client certificates in a web configuration (--web-config) open the rest.\n",
    )
        .into_response()
}

/// Refuses requests for a host name that somebody made point to loopback (DNS rebinding): a page of another site must
/// not read what this host sees.
async fn local_host(request: Request, next: Next) -> Response {
    if names_loopback(&request) {
        next.run(request).await
    } else {
        (
            StatusCode::MISDIRECTED_REQUEST,
            "This server answers to localhost and to addresses, not to other host names.\n",
        )
            .into_response()
    }
}

/// Whether every host that a request names, in its head or, over HTTP/2, in its target, is this one. HTTP/1.0 without a host
/// can't come from a browser.
fn names_loopback(request: &Request) -> bool {
    let in_target = request.uri().authority().map(|it| Ok(it.as_str()));
    let in_head = request.headers().get_all(header::HOST).iter();
    in_target
        .into_iter()
        .chain(in_head.map(HeaderValue::to_str))
        .all(|host| host.is_ok_and(is_local))
}

fn is_local(host: &str) -> bool {
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
    // Nobody reads it, so it has to say how long it is.
    if !request.body().is_end_stream() && !request.headers().contains_key(header::CONTENT_LENGTH) {
        return StatusCode::LENGTH_REQUIRED.into_response();
    }
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
    use axum::http::HeaderMap;
    use flowproof_common::address::Address;
    use flowproof_common::classify::{Judgement, UNEXPECTED_SLOT};
    use flowproof_common::key::{FlowKey, Side};
    use flowproof_common::protocol;
    use flowproof_common::record::{FlowRecord, SlotFlows, SlotTraffic};
    use flowproof_common::state::{Outcome, State as FlowState};
    use flowproof_common::ticks::Ticks;
    use serde_json::{Value, json};
    use tower_service::Service;

    use super::*;
    use crate::capture::SlotTotals;
    use crate::engine::actor::Start;
    use crate::engine::evidence::Book;
    use crate::engine::fake::{Fake, Script};
    use crate::engine::health::CaptureState;
    use crate::engine::policy;
    use crate::ledger::Remembered;
    use crate::matrix::installed::{Installed, SlotDirectory};
    use crate::verdict::window::Absence;

    async fn site() -> Arc<Site> {
        Arc::new(Site::new(
            Arc::new(Health::default()),
            Gate::open(None).unwrap(),
        ))
    }

    fn run(site: &Site) {
        run_with(site, |_| {});
    }

    fn run_with(site: &Site, prepare: impl FnOnce(&mut Script)) {
        let own = ["192.0.2.7".parse().unwrap()];
        let policy =
            policy::load(&[], None, &crate::site::tags::TagOptions::default(), &own).unwrap();
        let (capture, script) = Fake::new();
        prepare(&mut script.lock().unwrap());
        let (engine, _) = Engine::start(Start {
            capture,
            matrix: Arc::new(Installed::new(policy.compiled, SlotDirectory::default())),
            interfaces: vec![crate::capture::Interface {
                index: 2,
                name: "eth0".to_owned(),
            }],
            names: Vec::new(),
            needed: &|_| true,
            consumers: Vec::new(),
            health: Arc::clone(&site.health),
        })
        .unwrap();
        let evidence = Evidence::new(
            engine,
            (Book::default(), Remembered::default()),
            Duration::from_secs(86_400),
            Absence::Counted,
        );
        site.evidence.set(Arc::new(evidence)).unwrap();
        site.health.matrix_loaded(SystemTime::now());
    }

    async fn ask(
        site: &Arc<Site>,
        access: Access,
        path: &str,
        host: &str,
    ) -> (u16, HeaderMap, String) {
        let request = Request::get(path)
            .header(header::HOST, host)
            .body(Body::empty())
            .unwrap();
        let response = router(Arc::clone(site), access)
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
        let local = Access::Local;
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
        let (status, headers, html) = ask(&site, Access::Local, "/", "127.0.0.1:9871").await;
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
            ask(&site, Access::Local, "/style.css", "localhost").await.0,
            200
        );
        assert_eq!(ask(&site, Access::Open, "/", "10.0.0.1").await.0, 403);
        assert_eq!(
            ask(&site, Access::Open, "/metrics", "any.example").await.0,
            200
        );
        // A name that was made to point to loopback.
        assert_eq!(
            ask(&site, Access::Local, "/", "evil.example:9871").await.0,
            421
        );
        assert_eq!(ask(&site, Access::Local, "/", "[::1]:9871").await.0, 200);
        assert_eq!(
            ask(&site, Access::Local, "/nothing", "localhost").await.0,
            404
        );
    }

    #[test]
    fn a_host_is_looked_at_wherever_it_is_named() {
        let check = |target: &str, hosts: &[&str], expect: bool| {
            let mut request = Request::get(target);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            let request = request.body(Body::empty()).unwrap();
            assert_eq!(names_loopback(&request), expect, "{target} {hosts:?}");
        };
        check("/", &[], true);
        check("/", &["localhost:1"], true);
        check("/", &["evil.example"], false);
        check("/", &["\u{e9}"], false);
        // HTTP/2, and a proxy's form of HTTP/1.
        check("https://localhost:9871/", &[], true);
        check("https://127.0.0.1/", &["127.0.0.1"], true);
        check("https://evil.example/", &[], false);
        check("https://evil.example/", &["localhost"], false);
        check("https://localhost/", &["localhost", "evil.example"], false);
    }

    /// A TCP flow between two hosts, `age` ticks old.
    fn flow(age: u32, port: u16, slot: u32, outcome: Outcome) -> (FlowKey, FlowRecord) {
        let key = FlowKey {
            a: Address::from_v4([192, 0, 2, 7]),
            b: Address::from_v4([192, 0, 2, 8]),
            port_a: 50_000,
            port_b: port,
            protocol: protocol::TCP,
            icmp_type: 0,
            zero: [0; 2],
        };
        let judgement = Judgement {
            slot,
            initiator: Side::A,
            joined_midway: false,
            to_group: false,
            held: false,
        };
        // The clock of the fake back end.
        let epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let now = u64::try_from(epoch).unwrap() - 1_700_000_000_000_000_000;
        let begun = Ticks(Ticks::from_nanos(now).0.wrapping_sub(age));
        let state = FlowState::new(&judgement, 1).failed(outcome, Side::A);
        (key, FlowRecord::new(state, slot, begun))
    }

    /// Status and array of a path.
    async fn array(site: &Arc<Site>, path: &str) -> (u16, Vec<Value>) {
        let (status, headers, text) = ask(site, Access::Local, path, "localhost").await;
        assert_eq!(
            headers["content-type"], "application/json",
            "{path}: {text}"
        );
        // One element a line.
        assert_eq!(
            text.lines().count(),
            text.matches("\"type\":\"").count() + 2
        );
        (status, serde_json::from_str(&text).unwrap())
    }

    #[tokio::test]
    async fn flows_are_found_newest_first_and_all_are_counted() {
        let site = site().await;
        let before = ask(&site, Access::Local, "/api/v1/flows", "localhost").await;
        assert_eq!(before.0, 503);
        run_with(&site, |script| {
            for port in (1..=5).rev() {
                let age = u32::from(port) * 120;
                let outcome = if port == 3 {
                    Outcome::Refused
                } else {
                    Outcome::NoAnswer
                };
                script
                    .flows
                    .push(flow(age, 6_000 + port, UNEXPECTED_SLOT, outcome));
            }
        });
        let (status, got) = array(&site, "/api/v1/flows?limit=2").await;
        assert_eq!((status, got.len()), (200, 3));
        let ports: Vec<&Value> = got[..2]
            .iter()
            .map(|flow| &flow["responder"]["port"])
            .collect();
        assert_eq!(ports, [&json!(6001), &json!(6002)]);
        let names: Vec<&str> = got[0]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(names.len(), 14, "{names:?}");
        assert_eq!(
            got[0]["initiator"]["roles"],
            json!(["baseline-linux-host/linux-host"])
        );
        assert_eq!(got[0]["verdict"], "unexpected");
        assert!(!got[0]["near_misses"].as_array().unwrap().is_empty());
        let listing = &got[2];
        assert_eq!(
            (&listing["type"], &listing["flows"], &listing["listed"]),
            (&json!("listing"), &json!(5), &json!(2))
        );
        assert_eq!(listing["by_outcome"]["refused"], 1);
        assert_eq!(listing["by_outcome"]["no_answer"], 4);
        assert_eq!(listing["by_verdict"]["unexpected"], 5);
        let seconds = |time: &Value| {
            let time = humantime::parse_rfc3339(time.as_str().unwrap()).unwrap();
            SystemTime::now()
                .duration_since(time)
                .unwrap()
                .as_secs_f64()
        };
        // 600 ticks of 8.4 ms.
        assert!(
            (seconds(&listing["first_seen"]) - 5.03).abs() < 1.0,
            "{listing}"
        );
        assert!(
            (seconds(&listing["last_seen"]) - 1.0).abs() < 0.9,
            "{listing}"
        );

        for (query, flows) in [
            ("", 5),
            ("?outcome=refused", 1),
            ("?verdict=expected", 0),
            ("?port=6004&protocol=tcp", 1),
            ("?protocol=17", 0),
            ("?initiator=192.0.2.7&responder=192.0.2.0%2F24", 5),
            ("?initiator=192.0.2.8", 0),
            (
                "?initiator=baseline-linux-host%2Flinux-host&responder=192.0.2.8",
                5,
            ),
            ("?initiator_port=50000", 5),
            ("?initiator_port=50001", 0),
            ("?requirement=baseline-linux-host%2Fdns", 0),
        ] {
            let (_, got) = array(&site, &format!("/api/v1/flows{query}")).await;
            assert_eq!(got.last().unwrap()["flows"], flows, "{query}");
        }
        for (query, part) in [
            ("limit=0", "1 to 10000"),
            ("limit=10001", "1 to 10000"),
            ("verdict=bad", "write one of unscoped, unexpected, expected"),
            ("outcome=ok", "no_answer"),
            (
                "sort=age",
                "there is no parameter `sort`; there are: verdict",
            ),
            ("port=x", "65535"),
            ("protocol=tpc", "not a protocol"),
            ("initiator=a%2Fb", "no address has this role"),
            ("requirement=a%2Fb", "no such requirement"),
        ] {
            let path = format!("/api/v1/flows?{query}");
            let (status, _, text) = ask(&site, Access::Local, &path, "localhost").await;
            assert!(
                status == 400 && text.contains(part),
                "{query}: {status} {text}"
            );
        }
    }

    #[tokio::test]
    async fn requirements_have_the_states_of_the_page() {
        let site = site().await;
        run_with(&site, |script| {
            let epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
            let now = u64::try_from(epoch).unwrap() - 1_700_000_000_000_000_000;
            let totals = SlotTotals {
                traffic: SlotTraffic {
                    last_seen: 5_000_000_000,
                    ..SlotTraffic::default()
                },
                flows: SlotFlows {
                    begun: 2,
                    decided: [0, 0, 2, 0, 0, 0, 0, 0, 0],
                    last_attempt: now,
                    last_failed: now,
                    ..SlotFlows::default()
                },
            };
            script.snapshot.slots = vec![totals; 200];
        });
        let (status, got) = array(
            &site,
            "/api/v1/requirements?requirement=baseline-linux-host%2Fdns",
        )
        .await;
        assert_eq!((status, got.len()), (200, 1));
        assert_eq!(got[0]["type"], "requirement");
        assert_eq!(got[0]["id"], "baseline-linux-host/dns");
        assert_eq!(
            (&got[0]["state"], &got[0]["cause"]),
            (&json!("blocked"), &json!("refused"))
        );
        let service = &got[0]["services"][0];
        assert!(service["failed"].as_u64().unwrap() >= 2, "{service}");
        let seen = ["first_seen", "last_seen"].map(|what| service[what].as_str().unwrap());
        assert!(
            seen[0] == seen[1] && seen[0].ends_with("000000Z"),
            "{seen:?}"
        );
        assert_eq!(got[0]["since"].as_str().unwrap().len(), seen[0].len());
        let (_, all) = array(&site, "/api/v1/requirements").await;
        assert!(all.len() > 5);
        let path = "/api/v1/requirements?requirement=a%2Fb";
        let (status, _, text) = ask(&site, Access::Local, path, "localhost").await;
        assert!(
            status == 400 && text.contains("no such requirement"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn the_api_is_for_loopback_only() {
        let site = site().await;
        run(&site);
        for path in ["/api/v1/flows", "/api/v1/requirements"] {
            assert_eq!(ask(&site, Access::Local, path, "localhost").await.0, 200);
            assert_eq!(ask(&site, Access::Local, path, "evil.example").await.0, 421);
            let (status, _, text) = ask(&site, Access::Open, path, "10.0.0.1").await;
            assert!(
                status == 403 && text.contains("loopback listeners only"),
                "{text}"
            );
        }
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
