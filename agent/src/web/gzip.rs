//! Answers in gzip for those who take it: Prometheus does by default, and the text of a large matrix shrinks to a
//! thirtieth.

use std::io::Write as _;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;

/// Whether a request takes gzip (RFC 9110, section 12.5.3).
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).into_iter();
    let items = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    let mut any = None;
    for item in items {
        let (name, weight) = match item.split_once(';') {
            Some((name, weight)) => (name, weight.trim().trim_start_matches(['q', 'Q', '='])),
            None => (item, "1"),
        };
        let takes = weight.parse::<f32>().is_ok_and(|weight| weight > 0.0);
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") => return takes,
            "*" => any = Some(takes),
            _ => {}
        }
    }
    any.unwrap_or(false)
}

/// An answer, in gzip if that is wanted.
pub(super) fn answer(text: String, content_type: &'static str, gzip: bool) -> Response {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let varies = (header::VARY, HeaderValue::from_static("accept-encoding"));
    if gzip && let Ok(small) = compressed(text.as_bytes()) {
        let encoding = (header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        return ([kind, varies, encoding], small).into_response();
    }
    ([kind, varies], text).into_response()
}

/// At the fastest level: the others take several times as long for little.
fn compressed(text: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn knows_who_takes_gzip() {
        let check = |lists: &[&'static str], expect| {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(list));
            }
            assert_eq!(wanted(&headers), expect, "{lists:?}");
        };
        check(&[], false);
        check(&["gzip"], true);
        check(&["identity", "deflate, GZIP;q=0.5"], true);
        check(&["gzip;q=0"], false);
        check(&["gzip; q=0.000, *"], false);
        check(&["*"], true);
        check(&["*;q=0"], false);
        check(&["deflate, br"], false);
        check(&["gzip;q=x"], false);
    }

    #[tokio::test]
    async fn what_is_compressed_is_the_same_text() {
        let text = "flowproof_x{a=\"1\"} 0\n".repeat(1_000);
        let plain = answer(text.clone(), "text/plain", false);
        assert!(!plain.headers().contains_key(header::CONTENT_ENCODING));
        let small = answer(text.clone(), "text/plain", true);
        assert_eq!(small.headers()[header::CONTENT_ENCODING], "gzip");
        assert_eq!(small.headers()[header::CONTENT_TYPE], "text/plain");
        let body = axum::body::to_bytes(small.into_body(), 1 << 20)
            .await
            .unwrap();
        assert!(body.len() < text.len() / 10);
        let mut back = String::new();
        flate2::read::GzDecoder::new(&*body)
            .read_to_string(&mut back)
            .unwrap();
        assert_eq!(back, text);
    }
}
