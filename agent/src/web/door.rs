//! The door of a listener: what is served behind it depends on where it leads and on who asks, and is decided for each request
//! by the settings in force then.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use tower_service::Service as _;

use super::gate::{Gate, InForce};
use super::source::Source;
use super::users::{Check, TRIES};
use super::{Access, Exposure, Site, harden, router};

/// What a browser is told that has to ask for a password.
const REALM: HeaderValue = HeaderValue::from_static("Basic realm=\"flowproof\", charset=\"UTF-8\"");

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// The address.
    pub peer: IpAddr,
    /// Whether a certificate was shown that was verified.
    pub proven: bool,
}

/// The door of a listener.
#[derive(Debug)]
pub struct Door {
    gate: Arc<Gate>,
    exposure: Exposure,
    expose_flows: bool,
    open: Router,
    local: Router,
    all: Router,
}

impl Door {
    /// Of a listener that `exposure` can reach. `expose_flows` serves everything to anybody there.
    #[must_use]
    pub fn new(site: &Arc<Site>, exposure: Exposure, expose_flows: bool) -> Self {
        let router = |access| router(Arc::clone(site), access);
        Self {
            gate: Arc::clone(&site.gate),
            exposure,
            expose_flows,
            open: router(Access::Open),
            local: router(Access::Local),
            all: router(Access::All),
        }
    }

    /// Who decides.
    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// What somebody gets who proved, or did not prove, who he is.
    fn router(&self, authenticated: bool) -> &Router {
        match self.exposure {
            _ if authenticated => &self.all,
            Exposure::Loopback => &self.local,
            Exposure::Network if self.expose_flows => &self.all,
            Exposure::Network => &self.open,
        }
    }

    /// Answers a request, or says why not.
    pub async fn answer(&self, asker: Asker, request: Request<Body>) -> Response<Body> {
        self.gate.refresh().await;
        let in_force = self.gate.in_force();
        let credentials = request.headers().get(header::AUTHORIZATION).cloned();
        let mut response = match self.admit(&in_force, asker, credentials.as_ref()).await {
            Ok(authenticated) => {
                let mut router = self.router(authenticated).clone();
                match router.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
            Err(refused) => harden(refused).await,
        };
        let headers = response.headers_mut();
        for (name, value) in &in_force.settings.headers {
            headers.insert(name.clone(), value.clone());
        }
        self.gate.answered(response.status());
        response
    }

    /// Whether the asker is let in, and whether he proved who he is.
    async fn admit(
        &self,
        in_force: &InForce,
        asker: Asker,
        credentials: Option<&HeaderValue>,
    ) -> Result<bool, Response<Body>> {
        if !in_force.admits() {
            self.gate.limited();
            let text = "More requests came than `rate_limit` of the web configuration allows; try again.\n";
            return Err((StatusCode::TOO_MANY_REQUESTS, text).into_response());
        }
        let Some(users) = in_force.settings.users.as_ref() else {
            return Ok(asker.proven);
        };
        let source = Source::of(asker.peer);
        let check = self.gate.checker.check(users, source, credentials).await;
        self.gate.failed(check);
        if check == Check::Wrong {
            // No name: some people type their password there.
            tracing::debug!(peer = %asker.peer, "a wrong user or password");
        }
        match check {
            Check::Right => Ok(true),
            Check::Missing | Check::Wrong => {
                let text = "Name a user and a password that the web configuration has.\n";
                let headers = [(header::WWW_AUTHENTICATE, REALM)];
                Err((StatusCode::UNAUTHORIZED, headers, text).into_response())
            }
            Check::Later => {
                let wait = HeaderValue::from(TRIES.interval.as_secs());
                let text =
                    "Too many passwords were wrong, or too many are being checked; try again.\n";
                let headers = [(header::RETRY_AFTER, wait)];
                Err((StatusCode::TOO_MANY_REQUESTS, headers, text).into_response())
            }
        }
    }
}
