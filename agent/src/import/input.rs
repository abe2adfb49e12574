//! Bytes to blocks: what kind of document is it, in which encoding, and who reads it.

use clap::ValueEnum;

use super::block::Document;
use super::{ImportError, Input, delimited, fold, html, matrix_sheet, sheet, text};

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Plain text with tables by tabs, pipes or aligned columns
    Text,
    /// Markdown
    Markdown,
    /// HTML
    Html,
    /// Comma-separated values, also by semicolon or tab
    Csv,
    /// Office Open XML spreadsheet
    Xlsx,
    /// OpenDocument spreadsheet
    Ods,
}

/// Share of control characters, in percent, from which on bytes are no text.
const BINARY_PERCENT: usize = 5;

/// Reads a document.
pub(super) fn read(input: &Input, format: Option<Format>) -> Result<Document, ImportError> {
    let name = &input.name;
    if input.bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ImportError::Empty { name: name.clone() });
    }
    let format = match format {
        Some(format) => format,
        None => detect(input)?,
    };
    let mut document = match format {
        Format::Xlsx => sheet::xlsx(name, &input.bytes)?,
        Format::Ods => sheet::ods(name, &input.bytes)?,
        Format::Text | Format::Markdown => text::read(&decode(input)?),
        Format::Html => html::read(name, &decode(input)?)?,
        Format::Csv => delimited::read(name, &decode(input)?)?,
    };
    document.name.clone_from(name);
    if document.blocks.is_empty() {
        return Err(ImportError::Empty { name: name.clone() });
    }
    Ok(document)
}

/// The format by the content where that is telling, else by the name.
fn detect(input: &Input) -> Result<Format, ImportError> {
    let bytes = &input.bytes;
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return sheet::kind(&input.name, bytes);
    }
    let lower = input.name.to_ascii_lowercase();
    let named = |endings: &[&str]| endings.iter().any(|ending| lower.ends_with(ending));
    if named(&[".xlsx", ".xlsm"]) {
        return Ok(Format::Xlsx);
    }
    if named(&[".ods"]) {
        return Ok(Format::Ods);
    }
    for (magic, what) in [
        (&b"%PDF"[..], "a PDF"),
        (b"\xd0\xcf\x11\xe0", "an old Office file"),
        (b"\x7fELF", "a program"),
        (b"\x89PNG", "a picture"),
        (b"\xff\xd8\xff", "a picture"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"{\\rtf", "an RTF document"),
    ] {
        if bytes.starts_with(magic) {
            return Err(ImportError::Binary {
                name: input.name.clone(),
                what,
            });
        }
    }
    if named(&[".html", ".htm", ".xhtml"]) {
        return Ok(Format::Html);
    }
    if named(&[".csv", ".tsv"]) {
        return Ok(Format::Csv);
    }
    if bytes
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(bytes)
        .trim_ascii_start()
        .strip_prefix(b"\"")
        .unwrap_or(bytes)
        .starts_with(matrix_sheet::MARK.as_bytes())
    {
        return Ok(Format::Csv);
    }
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).to_ascii_lowercase();
    let start = head.trim_start_matches(['\u{feff}', ' ', '\n', '\r', '\t']);
    if start.starts_with("<!doctype html")
        || start.starts_with("<html")
        || (start.starts_with('<') && head.contains("<table"))
    {
        return Ok(Format::Html);
    }
    Ok(if named(&[".md", ".markdown"]) {
        Format::Markdown
    } else {
        Format::Text
    })
}

/// Bytes to text: by the byte order mark, else UTF-8, else Windows-1252, which any bytes are.
fn decode(input: &Input) -> Result<String, ImportError> {
    let bytes = &input.bytes;
    let utf16 = |unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes[2..]
            .chunks_exact(2)
            .map(|pair| unit([pair[0], pair[1]]))
            .collect();
        String::from_utf16_lossy(&units)
    };
    let text = if bytes.starts_with(&[0xff, 0xfe]) {
        utf16(u16::from_le_bytes)
    } else if bytes.starts_with(&[0xfe, 0xff]) {
        utf16(u16::from_be_bytes)
    } else {
        match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().map(|byte| windows_1252(*byte)).collect(),
        }
    };
    let text = text.trim_start_matches('\u{feff}');
    let strange = text
        .chars()
        .filter(|c| {
            (c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}'))
                || *c == char::REPLACEMENT_CHARACTER
        })
        .count();
    if text.contains('\0') || strange * 100 > text.len() * BINARY_PERCENT {
        return Err(ImportError::Binary {
            name: input.name.clone(),
            what: "it is full of control characters",
        });
    }
    let text = text.replace("\r\n", "\n").replace(['\r', '\u{c}'], "\n");
    let text = fold::visible(&text);
    if text.trim().is_empty() {
        return Err(ImportError::Empty {
            name: input.name.clone(),
        });
    }
    Ok(text)
}

/// The WHATWG Encoding Standard's index for windows-1252.
fn windows_1252(byte: u8) -> char {
    const HIGH: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž',
        '\u{8f}', '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}',
        'ž', 'Ÿ',
    ];
    match byte {
        0x80..=0x9f => HIGH[usize::from(byte - 0x80)],
        byte => char::from(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, bytes: &[u8]) -> Input {
        Input {
            name: name.to_owned(),
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn detects_formats() {
        let check = |name: &str, bytes: &[u8], expect| {
            assert_eq!(detect(&input(name, bytes)).ok(), expect, "{name}")
        };
        check("a.txt", b"Source\tDestination", Some(Format::Text));
        check("a", b"\n <!DOCTYPE html><p>", Some(Format::Html));
        check("a.md", b"# x", Some(Format::Markdown));
        check("a.csv", b"a,b", Some(Format::Csv));
        check("a.txt", b"%PDF-1.7", None);
        check("a.txt", b"\x7fELF", None);
    }

    #[test]
    fn refuses_what_is_no_text() {
        let error = |bytes: &[u8]| read(&input("a.txt", bytes), None).unwrap_err();
        assert!(matches!(error(b""), ImportError::Empty { .. }));
        assert!(matches!(error(b" \n\t "), ImportError::Empty { .. }));
        assert!(matches!(error(b"a\0b"), ImportError::Binary { .. }));
        assert!(matches!(
            error(&[1, 2, 3, 4, b'a', 6, 7]),
            ImportError::Binary { .. }
        ));
    }

    #[test]
    fn decodes() {
        let check =
            |bytes: &[u8], expect: &str| assert_eq!(decode(&input("a", bytes)).unwrap(), expect);
        check(b"\xef\xbb\xbfa\r\nb", "a\nb");
        check(b"\xff\xfea\0\x22\x20", "a\u{2022}");
        check(b"\xfe\xff\0a", "a");
        check(b"caf\xe9 \x95", "café •");
    }
}
