//! The configuration of `flowproof run`: a YAML file, overridden by flags. `model` (and `events`, for
//! where events go) holds the valid types with their defaults, `read` makes them from a file, `units` reads sizes and
//! durations, `schema` publishes the shape.
//!
//! Nothing here opens a socket or an interface: what a value means on this machine shows when it is used.

mod events;
mod model;
mod read;
pub mod schema;
mod units;

pub use events::{
    EventTarget, EventsConfig, Facility, Header, Identity, JsonConfig, OtlpConfig, OtlpEndpoint,
    OtlpEndpointError, OtlpProtocol, SyslogAddress, SyslogAddressError, SyslogConfig, TlsFiles,
};
pub use model::{
    Attach, BackendChoice, CaptureConfig, Config, Conflict, EbpfOptions, FlowCapacity,
    InterfacePattern, LedgerConfig, LogConfig, LogFormat, LogLevel, NamesConfig, OnExit,
    PatternError, PcapOptions, ResolverAddressError, STATE_DIRECTORY, SecurityConfig, TagsConfig,
    WebConfig, parse_resolver,
};
pub use read::ConfigReading;
pub(crate) use read::{BUFFER_SIZE, HOLD, SNAP_LENGTH};
pub use units::{DurationError, SizeError, parse_duration, parse_size};
