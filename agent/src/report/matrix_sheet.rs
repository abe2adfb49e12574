//! A matrix as a sheet, which `import` reads back to the same matrix: for those who work on requirements in a spreadsheet.

use crate::import::matrix_sheet::{COLUMNS, rows};
use crate::matrix::Matrix;

/// Why a sheet could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SheetError {
    /// A text is longer than a cell of a workbook.
    #[error(
        "a text is longer than the 32,767 characters that a cell of a workbook holds: write CSV"
    )]
    TooLong,
    /// More rows than a worksheet holds.
    #[error("the matrix has more rows than a worksheet holds: write CSV")]
    TooManyRows,
    /// The workbook could not be made.
    #[error("cannot make the workbook: {0}")]
    Workbook(String),
    /// The CSV text could not be made.
    #[error("cannot make the CSV text: {0}")]
    Csv(String),
}

/// The matrix as CSV (RFC 4180), UTF-8, every cell quoted.
///
/// # Errors
/// [`SheetError::Csv`] if the writer refuses.
pub fn csv(matrix: &Matrix) -> Result<Vec<u8>, SheetError> {
    let failed = |error: csv::Error| SheetError::Csv(error.to_string());
    let mut writer = csv::WriterBuilder::new()
        .quote_style(csv::QuoteStyle::Always)
        .from_writer(Vec::new());
    writer.write_record(COLUMNS).map_err(failed)?;
    for row in rows(matrix) {
        writer.write_record(&row).map_err(failed)?;
    }
    writer
        .into_inner()
        .map_err(|error| SheetError::Csv(error.to_string()))
}

/// The matrix as an Office Open XML workbook of one worksheet; all cells are texts.
///
/// # Errors
/// [`SheetError`] if the matrix is too large for a worksheet.
pub fn xlsx(matrix: &Matrix) -> Result<Vec<u8>, SheetError> {
    use rust_xlsxwriter::{Format, Workbook, XlsxError};

    let failed = |error: XlsxError| {
        if matches!(error, XlsxError::MaxStringLengthExceeded) {
            SheetError::TooLong
        } else {
            SheetError::Workbook(error.to_string())
        }
    };
    let mut book = Workbook::new();
    let sheet = book.add_worksheet();
    sheet.set_name("matrix").map_err(failed)?;
    let bold = Format::new().set_bold();
    let column = |index: usize| u16::try_from(index).unwrap_or(u16::MAX);
    for (index, title) in COLUMNS.iter().enumerate() {
        sheet
            .write_string_with_format(0, column(index), *title, &bold)
            .map_err(failed)?;
    }
    for (index, cells) in rows(matrix).iter().enumerate() {
        let row = u32::try_from(index + 1)
            .ok()
            .filter(|row| *row < 1_048_576)
            .ok_or(SheetError::TooManyRows)?;
        for (index, cell) in cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| !cell.is_empty())
        {
            sheet
                .write_string(row, column(index), cell)
                .map_err(failed)?;
        }
    }
    sheet.set_freeze_panes(1, 0).map_err(failed)?;
    book.save_to_buffer().map_err(failed)
}
