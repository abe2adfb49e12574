//! Against a DNS server on loopback. What takes minutes is tested in the schedule, which takes time as a parameter.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{RData, Record};
use tokio::net::UdpSocket;
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::names::schedule::SPACING;

/// What the server says of a name.
#[derive(Clone)]
enum Says {
    /// These addresses, with this time to live.
    Addresses(u32, Vec<IpAddr>),
    /// An alias with this time to live, without what it stands for.
    Alias(u32, &'static str),
    Code(ResponseCode),
    Nothing,
}

#[derive(Default)]
struct Zone {
    names: BTreeMap<String, Says>,
    asked: Vec<(String, RecordType)>,
}

type Shared = Arc<Mutex<Zone>>;

async fn server(names: &[(&str, Says)]) -> (SocketAddr, Shared) {
    let zone = Arc::new(Mutex::new(Zone::default()));
    for (name, says) in names {
        set(&zone, name, says.clone());
    }
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let shared = Arc::clone(&zone);
    tokio::spawn(async move {
        let mut buffer = [0; 1_500];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..length]).unwrap();
            if let Some(answer) = reply(&query, &shared) {
                socket
                    .send_to(&answer.to_vec().unwrap(), client)
                    .await
                    .unwrap();
            }
        }
    });
    (address, zone)
}

fn set(zone: &Shared, name: &str, says: Says) {
    zone.lock().unwrap().names.insert(name.to_owned(), says);
}

fn asked(zone: &Shared) -> Vec<(String, RecordType)> {
    std::mem::take(&mut zone.lock().unwrap().asked)
}

fn reply(query: &Message, zone: &Shared) -> Option<Message> {
    let question = query.queries.first().unwrap().clone();
    let name = question.name().to_ascii().to_ascii_lowercase();
    let name = name.trim_end_matches('.').to_owned();
    let mut zone = zone.lock().unwrap();
    zone.asked.push((name.clone(), question.query_type()));
    let says = zone
        .names
        .get(&name)
        .cloned()
        .unwrap_or(Says::Code(ResponseCode::NXDomain));
    drop(zone);
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    let owner = question.name().clone();
    match says {
        Says::Addresses(ttl, addresses) => {
            let wanted = question.query_type();
            answer.add_answers(addresses.into_iter().filter_map(|address| {
                match address {
                    IpAddr::V4(v4) if wanted == RecordType::A => Some(RData::A(A(v4))),
                    IpAddr::V6(v6) if wanted == RecordType::AAAA => Some(RData::AAAA(AAAA(v6))),
                    IpAddr::V4(_) | IpAddr::V6(_) => None,
                }
                .map(|data| Record::from_rdata(owner.clone(), ttl, data))
            }));
        }
        Says::Alias(ttl, target) => {
            let target = WireName::from_ascii(target).unwrap();
            answer.add_answer(Record::from_rdata(owner, ttl, RData::CNAME(CNAME(target))));
        }
        Says::Code(code) => answer.metadata.response_code = code,
        Says::Nothing => return None,
    }
    answer.add_query(question);
    Some(answer)
}

fn found(ttl: u32, addresses: &[&str]) -> Says {
    let addresses = addresses.iter().map(|text| text.parse().unwrap());
    Says::Addresses(ttl, addresses.collect())
}

fn names(texts: &[&str]) -> Arc<[Name]> {
    texts.iter().map(|text| Name::from(*text)).collect()
}

async fn hear(answers: &mut mpsc::Receiver<Answer>) -> Answer {
    tokio::time::timeout(Duration::from_secs(10), answers.recv())
        .await
        .expect("an answer within 10 s")
        .expect("the task goes on")
}

#[tokio::test]
async fn answers_come_with_their_chain_and_time() {
    let (address, zone) = server(&[
        ("www.example", Says::Alias(60, "edge.example.")),
        ("edge.example", Says::Alias(20, "pool.example.")),
        (
            "pool.example",
            found(300, &["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
        ),
    ])
    .await;
    let resolver = resolver(&[address]).unwrap();
    let name = Name::from("www.example");
    let answer = ask(&resolver, &name, Kind::A, RecordType::A).await.unwrap();
    assert_eq!(answer.question, name);
    assert_eq!((answer.kind, answer.result), (Kind::A, Found::Found));
    assert_eq!(*answer.aliases, *names(&["edge.example", "pool.example"]));
    let mut addresses = answer.addresses;
    addresses.sort_unstable();
    assert_eq!(
        addresses,
        [
            ("192.0.2.1".parse().unwrap(), 20),
            ("192.0.2.2".parse().unwrap(), 20)
        ]
    );
    let answer = ask(&resolver, &name, Kind::Aaaa, RecordType::AAAA)
        .await
        .unwrap();
    assert_eq!(answer.addresses, [("2001:db8::1".parse().unwrap(), 20)]);
    // Nothing is remembered: the schedule alone decides when to ask.
    asked(&zone);
    ask(&resolver, &name, Kind::A, RecordType::A).await.unwrap();
    assert_eq!(asked(&zone)[0], ("www.example".to_owned(), RecordType::A));
}

#[tokio::test]
async fn negative_answers_are_told_apart() {
    let (address, _zone) = server(&[
        ("none.example", Says::Code(ResponseCode::NXDomain)),
        ("failed.example", Says::Code(ResponseCode::ServFail)),
        ("refused.example", Says::Code(ResponseCode::Refused)),
        ("v4.example", found(60, &["192.0.2.1"])),
    ])
    .await;
    let resolver = resolver(&[address]).unwrap();
    for (name, expect) in [
        ("none.example", Found::NoName),
        ("failed.example", Found::ServerFailure),
        ("refused.example", Found::Refused),
        ("v4.example", Found::NoData),
    ] {
        let answer = ask(&resolver, &Name::from(name), Kind::Aaaa, RecordType::AAAA)
            .await
            .unwrap();
        assert_eq!((&*answer.question, answer.result), (name, expect));
        assert_eq!(answer.addresses, []);
    }
}

#[tokio::test]
async fn silence_is_no_answer() {
    let (address, _zone) = server(&[("mute.example", Says::Nothing)]).await;
    let mut options = ResolverOpts::default();
    options.timeout = Duration::from_millis(50);
    options.attempts = 1;
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![name_server(address)]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    let resolver = builder.build().unwrap();
    let name = Name::from("mute.example");
    let heard = ask(&resolver, &name, Kind::A, RecordType::A).await;
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test]
async fn the_task_follows_the_names() {
    let (address, zone) = server(&[
        ("a.example", found(600, &["192.0.2.1"])),
        ("b.example", found(600, &["192.0.2.2"])),
    ])
    .await;
    let (sender, mut answers) = mpsc::channel(8);
    let resolution = Resolution::start(vec![address], names(&["a.example"]), sender);
    let first = hear(&mut answers).await;
    assert_eq!(
        (&*first.question, first.kind, first.result),
        ("a.example", Kind::A, Found::Found)
    );
    let second = hear(&mut answers).await;
    assert_eq!((second.kind, second.result), (Kind::Aaaa, Found::NoData));

    resolution.set_names(names(&["a.example", "b.example"]));
    assert_eq!(&*hear(&mut answers).await.question, "b.example");
    assert_eq!(&*hear(&mut answers).await.question, "b.example");
    // The one that stayed is not asked for again before its time.
    let of_a = asked(&zone)
        .iter()
        .filter(|(name, _)| name == "a.example")
        .count();
    assert_eq!(of_a, 2);

    // With its end, the channel ends.
    drop(resolution);
    let end = tokio::time::timeout(Duration::from_secs(1), answers.recv()).await;
    assert_eq!(end, Ok(None));
}

#[tokio::test]
async fn queries_keep_to_the_rate() {
    let (address, zone) = server(&[]).await;
    let (sender, mut answers) = mpsc::channel(1_000);
    let all: Vec<String> = (0..500)
        .map(|number| format!("n{number}.example"))
        .collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let start = Instant::now();
    let resolution = Resolution::start(vec![address], names(&all), sender);
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    drop(resolution);
    let spaces = start.elapsed().as_millis() / SPACING.as_millis();
    let queries = asked(&zone).len();
    // Two for the name at the start and for each space after it.
    let most = 2 * (usize::try_from(spaces).unwrap() + 1);
    assert!((2..=most).contains(&queries), "{queries} of {most}");
    assert_eq!(hear(&mut answers).await.result, Found::NoName);
}

/// Log lines of one test.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn logged(act: impl FnOnce()) -> String {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .finish();
    tracing::subscriber::with_default(subscriber, act);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn heard(result: Found, addresses: &[&str]) -> Result<Answer, Silence> {
    Ok(Answer {
        question: Name::from("a.example"),
        kind: Kind::A,
        result,
        aliases: Vec::new(),
        addresses: addresses
            .iter()
            .map(|text| (text.parse().unwrap(), 60))
            .collect(),
        ech_public_name: None,
    })
}

#[test]
fn changes_are_logged() {
    let name = Name::from("a.example");
    let mut moves = Moves::default();
    let now = Instant::now();
    let mut check = |a: Result<Answer, Silence>, expect: &str| {
        let turn = [a, heard(Found::NoData, &[])];
        let lines = logged(|| report(&name, &turn, &mut moves, now));
        assert_eq!(lines.trim(), expect);
    };
    check(heard(Found::Found, &["192.0.2.1"]), "");
    check(
        heard(
            Found::Found,
            &[
                "192.0.2.2",
                "192.0.2.3",
                "192.0.2.4",
                "192.0.2.5",
                "192.0.2.6",
            ],
        ),
        "INFO a.example moved from 192.0.2.1 to 192.0.2.2, 192.0.2.3, 192.0.2.4, 192.0.2.5 and 1 more",
    );
    // Below the level of the test, as of most sites.
    check(heard(Found::Found, &["192.0.2.2"]), "");
    // Nobody answered for one of the two, which proves nothing.
    check(Err("timed out".to_owned()), "");
    check(
        heard(Found::NoName, &[]),
        "WARN a.example does not resolve any more: there is no such name (NXDOMAIN); it had 192.0.2.2",
    );
    check(heard(Found::NoName, &[]), "");
    check(
        heard(Found::Found, &["192.0.2.2"]),
        "INFO a.example resolves again, to 192.0.2.2; before, it had 192.0.2.2",
    );
}

#[test]
fn resolvers_that_are_away_are_said_to_be_once() {
    let mute = [Err("timed out".to_owned()), Err("timed out".to_owned())];
    let mut silent = 0;
    let lines = logged(|| {
        for _ in 0..10 {
            silent = count_silence(silent, &mute);
        }
    });
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.contains("no resolver answers (timed out)"), "{lines}");
    let answers = [heard(Found::NoName, &[]), Err("timed out".to_owned())];
    let lines = logged(|| silent = count_silence(silent, &answers));
    assert!(lines.contains("resolvers answer again"), "{lines}");
    assert_eq!(silent, 0);
}
