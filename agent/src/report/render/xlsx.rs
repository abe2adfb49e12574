//! A report as an Office Open XML workbook: an overview, the requirements by service with their states coloured, the
//! unexpected traffic, and the texts of tickets. Texts are texts, never formulas.

use rust_xlsxwriter::{Color, Format, Workbook, Worksheet, XlsxError};

use super::{COLUMNS, Value, lines};
use crate::report::matrix_sheet::SheetError;
use crate::report::model::{Report, letter, meaning};
use crate::verdict::requirement::State;

/// Characters that a cell holds.
const MOST_CHARACTERS: usize = 32_767;
/// Rows that a worksheet holds.
const MOST_ROWS: usize = 1_048_576;

fn failed(error: XlsxError) -> SheetError {
    if matches!(error, XlsxError::MaxStringLengthExceeded) {
        SheetError::TooLong
    } else {
        SheetError::Workbook(error.to_string())
    }
}

/// A fill for a state; the state's name stands in the cell.
fn colour(state: State) -> Color {
    Color::RGB(match state {
        State::Verified => 0x00BF_E8C5,
        State::Degraded => 0x00FF_DD99,
        State::Blocked => 0x00F4_A9A0,
        State::Silent => 0x00E3_E3E3,
        State::Unobservable => 0x00CF_D8E8,
        State::Unknown => 0x00E2_C6F0,
    })
}

struct Sheet<'a> {
    sheet: &'a mut Worksheet,
    row: u32,
}

impl<'a> Sheet<'a> {
    fn new(book: &'a mut Workbook, name: &str) -> Result<Self, SheetError> {
        let sheet = book.add_worksheet();
        sheet.set_name(name).map_err(failed)?;
        Ok(Self { sheet, row: 0 })
    }

    fn line(&mut self, cells: &[Value], format: &Format) -> Result<(), SheetError> {
        if self.row as usize >= MOST_ROWS {
            return Err(SheetError::TooManyRows);
        }
        for (column, cell) in cells.iter().enumerate() {
            let column = u16::try_from(column).unwrap_or(u16::MAX);
            match cell {
                Value::Text(text) if text.is_empty() => {}
                Value::Text(text) => {
                    let text: String = text.chars().take(MOST_CHARACTERS).collect();
                    self.sheet
                        .write_string_with_format(self.row, column, text, format)
                        .map_err(failed)?;
                }
                Value::Number(number) => {
                    // A cell is a double: exact to 2^53, and no counter of flows gets there.
                    #[expect(clippy::cast_precision_loss, reason = "see above")]
                    let number = *number as f64;
                    self.sheet
                        .write_number_with_format(self.row, column, number, format)
                        .map_err(failed)?;
                }
            }
        }
        self.row += 1;
        Ok(())
    }

    fn texts(&mut self, cells: &[&str], format: &Format) -> Result<(), SheetError> {
        let cells: Vec<Value> = cells.iter().map(|text| (*text).into()).collect();
        self.line(&cells, format)
    }
}

/// The report as a workbook.
///
/// # Errors
/// [`SheetError`] if it is too large for a worksheet.
pub fn render(report: &Report) -> Result<Vec<u8>, SheetError> {
    let mut book = Workbook::new();
    overview(report, &mut book)?;
    let (requirements, unexpected): (Vec<_>, Vec<_>) = lines(report)
        .into_iter()
        .partition(|line| line.first() == Some(&"requirement".into()));
    table(&mut book, "requirements", &requirements)?;
    table(&mut book, "unexpected", &unexpected)?;
    tickets(report, &mut book)?;
    book.save_to_buffer().map_err(failed)
}

fn overview(report: &Report, book: &mut Workbook) -> Result<(), SheetError> {
    let (plain, bold) = (Format::new(), Format::new().set_bold());
    let mut sheet = Sheet::new(book, "overview")?;
    sheet.texts(&["flowproof report"], &bold)?;
    for (title, text) in [
        ("source", Some(&report.source)),
        ("site", report.site.as_ref()),
        ("since", report.since.as_ref()),
        ("until", report.until.as_ref()),
        ("unwatched since", report.unwatched_since.as_ref()),
    ] {
        if let Some(text) = text {
            sheet.texts(&[title, text], &plain)?;
        }
    }
    for state in State::ALL {
        let cells = [
            state.name().into(),
            Value::Number(report.in_state(state) as u64),
            letter(state).to_string().as_str().into(),
            meaning(state).into(),
        ];
        sheet.line(&cells, &Format::new().set_background_color(colour(state)))?;
    }
    let flows = [
        "unexpected flows".into(),
        Value::Number(report.unexpected_flows),
    ];
    sheet.line(&flows, &plain)?;
    if let Some(losses) = report.losses() {
        sheet.texts(&["lost", &losses], &plain)?;
    }
    for note in &report.notes {
        sheet.texts(&["note", note], &plain)?;
    }
    Ok(())
}

fn table(book: &mut Workbook, name: &str, lines: &[Vec<Value>]) -> Result<(), SheetError> {
    let mut sheet = Sheet::new(book, name)?;
    sheet.texts(&COLUMNS, &Format::new().set_bold())?;
    let plain = Format::new();
    for line in lines {
        let row = sheet.row;
        sheet.line(line, &plain)?;
        for (column, cell) in line.iter().enumerate() {
            let is_state = COLUMNS
                .get(column)
                .is_some_and(|name| name.ends_with("state"));
            let Value::Text(text) = cell else { continue };
            let state = State::ALL.into_iter().find(|state| state.name() == text);
            if let Some(state) = state.filter(|_| is_state) {
                let format = Format::new().set_background_color(colour(state));
                let column = u16::try_from(column).unwrap_or(u16::MAX);
                sheet
                    .sheet
                    .write_string_with_format(row, column, text, &format)
                    .map_err(failed)?;
            }
        }
    }
    sheet.sheet.set_freeze_panes(1, 0).map_err(failed)?;
    Ok(())
}

fn tickets(report: &Report, book: &mut Workbook) -> Result<(), SheetError> {
    let mut sheet = Sheet::new(book, "tickets")?;
    sheet.texts(
        &["requirement", "state", "ticket"],
        &Format::new().set_bold(),
    )?;
    let wrapped = Format::new().set_text_wrap();
    for (row, ticket) in report.tickets() {
        sheet.texts(&[&row.id, row.state.name(), &ticket.text()], &wrapped)?;
    }
    sheet.sheet.set_column_width(0, 40).map_err(failed)?;
    sheet.sheet.set_column_width(2, 100).map_err(failed)?;
    sheet.sheet.set_freeze_panes(1, 0).map_err(failed)?;
    Ok(())
}
