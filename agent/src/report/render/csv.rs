//! A report as CSV (RFC 4180): a line a service of a requirement, then a line a kind of unexpected traffic. The columns are
//! the same in both and never change their order.

use super::{COLUMNS, Value, lines, one_line};
use crate::report::matrix_sheet::SheetError;
use crate::report::model::Report;

/// The report as CSV, UTF-8, every cell quoted.
///
/// # Errors
/// [`SheetError::Csv`] if the writer refuses.
pub fn render(report: &Report) -> Result<Vec<u8>, SheetError> {
    let failed = |error: csv::Error| SheetError::Csv(error.to_string());
    let mut writer = csv::WriterBuilder::new()
        .quote_style(csv::QuoteStyle::Always)
        .from_writer(Vec::new());
    writer.write_record(COLUMNS).map_err(failed)?;
    for line in lines(report) {
        let cells = line.iter().map(|value| match value {
            Value::Text(text) => harmless(text),
            Value::Number(number) => number.to_string(),
        });
        writer.write_record(cells).map_err(failed)?;
    }
    writer
        .into_inner()
        .map_err(|error| SheetError::Csv(error.to_string()))
}

/// A spreadsheet takes a cell that begins like this for a formula, and names come from the network.
fn harmless(text: &str) -> String {
    let text = one_line(text);
    if text.starts_with(['=', '+', '-', '@']) {
        format!("'{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        assert_eq!(harmless("=HYPERLINK(1)"), "'=HYPERLINK(1)");
        assert_eq!(harmless("@x\n"), "'@x ");
        assert_eq!(harmless("a=b"), "a=b");
    }
}
