//! Spreadsheets to blocks, by calamine. A sheet is a packed file that may claim to be of any size, so everything is
//! counted before it is unpacked or laid out.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};

use calamine::{Data, DataRef, Dimensions, Ods, Reader as _, Xlsx};
use quick_xml::events::{BytesStart, Event};

use super::block::{Block, Document, Line, Row, Table, line_number};
use super::fold::visible;
use super::input::Format;
use super::{ImportError, MAX_CELLS, MAX_UNPACKED_BYTES};

/// Most parts of a packed sheet: one for every worksheet and some more.
const MAX_PARTS: usize = 4096;

type Zip<'a> = zip::ZipArchive<Cursor<&'a [u8]>>;

/// Cells of one worksheet, by row.
#[derive(Default)]
struct Grid {
    rows: BTreeMap<u32, BTreeMap<u32, String>>,
    remarks: Vec<Line>,
    /// Rows that begin with a merged cell: how many columns it has.
    merged: BTreeMap<u32, usize>,
}

/// What a packed file is.
pub(super) fn kind(name: &str, bytes: &[u8]) -> Result<Format, ImportError> {
    let zip = open(name, "XLSX or ODS", bytes)?;
    if zip.index_for_name("content.xml").is_some() {
        return Ok(Format::Ods);
    }
    if zip
        .file_names()
        .flatten()
        .any(|part| part.starts_with("xl/") || part.starts_with("xl\\"))
    {
        return Ok(Format::Xlsx);
    }
    Err(ImportError::Binary {
        name: name.to_owned(),
        what: "an archive without a workbook",
    })
}

fn open<'a>(name: &str, kind: &'static str, bytes: &'a [u8]) -> Result<Zip<'a>, ImportError> {
    zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| bad(name, kind, &error.to_string()))
}

fn bad(name: &str, kind: &'static str, reason: &str) -> ImportError {
    ImportError::Sheet {
        name: name.to_owned(),
        kind,
        reason: reason.to_owned(),
    }
}

/// Unpacks every part once, counting: the sizes in the archive's directory may be lies.
fn unpack(name: &str, kind: &'static str, bytes: &[u8]) -> Result<(), ImportError> {
    let mut zip = open(name, kind, bytes)?;
    if zip.len() > MAX_PARTS {
        return Err(bad(name, kind, "it has thousands of parts"));
    }
    let mut left = MAX_UNPACKED_BYTES;
    for index in 0..zip.len() {
        let part = zip
            .by_index(index)
            .map_err(|error| bad(name, kind, &error.to_string()))?;
        let size = std::io::copy(&mut part.take(left + 1), &mut std::io::sink())
            .map_err(|error| bad(name, kind, &error.to_string()))?;
        left = left
            .checked_sub(size)
            .ok_or_else(|| ImportError::Unpacked {
                name: name.to_owned(),
            })?;
    }
    Ok(())
}

/// Reads an Office Open XML workbook.
pub(super) fn xlsx(name: &str, bytes: &[u8]) -> Result<Document, ImportError> {
    const KIND: &str = "XLSX";
    unpack(name, KIND, bytes)?;
    let error = |error: calamine::XlsxError| bad(name, KIND, &error.to_string());
    let mut book = Xlsx::new(Cursor::new(bytes)).map_err(error)?;
    let mut document = Document::default();
    let mut cells = 0;
    for sheet in book.sheet_names() {
        let merged = match book.merge_cells_by_sheet_name(&sheet) {
            Ok(merged) => merged,
            // A chart has a name among the sheets, but no cells.
            Err(calamine::XlsxError::NotAWorksheet(_)) => continue,
            Err(other) => return Err(error(other)),
        };
        let mut grid = Grid::default();
        let mut reader = match book.worksheet_cells_reader(&sheet) {
            Ok(reader) => reader,
            Err(calamine::XlsxError::NotAWorksheet(_)) => continue,
            Err(other) => return Err(error(other)),
        };
        while let Some(cell) = reader.next_cell_with_formula().map_err(error)? {
            cells += 1;
            if cells > MAX_CELLS {
                return Err(too_many(name));
            }
            let (row, column) = cell.pos;
            let text = if let DataRef::SharedString(text) = cell.value {
                text.to_owned()
            } else {
                Data::from(cell.value).to_string()
            };
            grid.put(row, column, text, cell.formula.as_deref());
        }
        grid.merge(&merged, &mut cells, name)?;
        grid.finish(sheet, &mut document, &mut cells, name)?;
    }
    Ok(document)
}

/// Reads an OpenDocument workbook.
pub(super) fn ods(name: &str, bytes: &[u8]) -> Result<Document, ImportError> {
    const KIND: &str = "ODS";
    unpack(name, KIND, bytes)?;
    measure(name, KIND, bytes)?;
    let mut book =
        Ods::new(Cursor::new(bytes)).map_err(|error| bad(name, KIND, &error.to_string()))?;
    let mut document = Document::default();
    let mut cells = 0;
    for sheet in book.sheet_names() {
        let error = |error: calamine::OdsError| bad(name, KIND, &error.to_string());
        let values = book.worksheet_range(&sheet).map_err(error)?;
        let formulas = book.worksheet_formula(&sheet).map_err(error)?;
        let mut grid = Grid::default();
        let (top, left) = values.start().unwrap_or_default();
        for (row, column, value) in values.used_cells() {
            cells += 1;
            let at = |offset: usize, start: u32| {
                u32::try_from(offset)
                    .unwrap_or(u32::MAX)
                    .saturating_add(start)
            };
            let (row, column) = (at(row, top), at(column, left));
            let formula = formulas
                .get_value((row, column))
                .filter(|formula| !formula.is_empty());
            grid.put(row, column, value.to_string(), formula.map(String::as_str));
        }
        grid.finish(sheet, &mut document, &mut cells, name)?;
    }
    Ok(document)
}

fn too_many(name: &str) -> ImportError {
    ImportError::Cells {
        name: name.to_owned(),
    }
}

impl Grid {
    fn put(&mut self, row: u32, column: u32, text: String, formula: Option<&str>) {
        let mut text = visible(&text);
        if let Some(formula) = formula {
            let formula = visible(formula);
            let formula = formula.trim_start_matches("of:").trim_start_matches('=');
            let remark = if text.trim().is_empty() {
                text = format!("={formula}");
                "a cell is a formula without a stored value".to_owned()
            } else {
                format!(
                    "the value `{}` is the stored result of the formula `={formula}`",
                    text.trim()
                )
            };
            self.remarks
                .push(Line::plain(row.saturating_add(1), remark));
        }
        if !text.trim().is_empty() {
            self.rows.entry(row).or_default().insert(column, text);
        }
    }

    /// Puts a merged cell's text into every place that it covers.
    fn merge(
        &mut self,
        merged: &[Dimensions],
        cells: &mut usize,
        name: &str,
    ) -> Result<(), ImportError> {
        for region in merged {
            let Some(text) = self
                .rows
                .get(&region.start.0)
                .and_then(|row| row.get(&region.start.1))
                .cloned()
            else {
                continue;
            };
            let height = region.end.0.saturating_sub(region.start.0) as usize + 1;
            let width = region.end.1.saturating_sub(region.start.1) as usize + 1;
            *cells = cells.saturating_add(height.saturating_mul(width));
            if *cells > MAX_CELLS {
                return Err(too_many(name));
            }
            for row in region.start.0..=region.end.0 {
                if region.start.1 == 0 {
                    self.merged.insert(row, width);
                }
                for column in region.start.1..=region.end.1 {
                    self.rows
                        .entry(row)
                        .or_default()
                        .entry(column)
                        .or_insert_with(|| text.clone());
                }
            }
        }
        Ok(())
    }

    fn finish(
        self,
        sheet: String,
        document: &mut Document,
        cells: &mut usize,
        name: &str,
    ) -> Result<(), ImportError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::with_capacity(self.rows.len());
        for (index, row) in self.rows {
            let width = row
                .last_key_value()
                .map_or(0, |(column, _)| *column as usize + 1);
            // Blank cells before the last one are laid out too.
            *cells = cells.saturating_add(width - row.len());
            if *cells > MAX_CELLS {
                return Err(too_many(name));
            }
            let mut laid_out = vec![String::new(); width];
            for (column, text) in row {
                laid_out[column as usize] = text;
            }
            let mut row = Row::new(line_number(index as usize), laid_out);
            row.merged = self.merged.get(&index) == Some(&width);
            rows.push(row);
        }
        document
            .blocks
            .push(Block::Heading(Line::plain(0, visible(&sheet))));
        document.blocks.push(Block::Table(Table {
            strict: true,
            rows,
            remarks: self.remarks,
        }));
        Ok(())
    }
}

/// Refuses an OpenDocument sheet whose repetitions stand for too many cells: calamine lays them all out.
fn measure(name: &str, kind: &'static str, bytes: &[u8]) -> Result<(), ImportError> {
    let mut zip = open(name, kind, bytes)?;
    let part = zip
        .by_name("content.xml")
        .map_err(|error| bad(name, kind, &error.to_string()))?;
    let mut reader = quick_xml::Reader::from_reader(std::io::BufReader::new(part));
    reader.config_mut().check_end_names = false;
    let repeats = |tag: &BytesStart<'_>, key: &str| {
        tag.attributes()
            .flatten()
            .find(|attribute| attribute.key.as_ref() == key)
            .and_then(|attribute| attribute.value.trim().parse::<usize>().ok())
            .unwrap_or(1)
    };
    let mut buffer = Vec::new();
    let (mut rows, mut row_repeats) = (0_usize, 1_usize);
    let (mut columns, mut widest) = (0_usize, 0_usize);
    let mut filled = false;
    let mut in_table = 0_usize;
    loop {
        let event = reader
            .read_event_into(&mut buffer)
            .map_err(|error| bad(name, kind, &error.to_string()))?;
        let (tag, empty) = match &event {
            Event::Start(tag) => (Some(tag), false),
            Event::Empty(tag) => (Some(tag), true),
            Event::Eof => return Ok(()),
            Event::End(tag) => {
                if tag.name().as_ref() == "table:table-row" && filled {
                    // The area that is laid out, twice: values and formulas.
                    if rows.saturating_mul(widest) > MAX_CELLS.saturating_mul(4) {
                        return Err(too_many(name));
                    }
                }
                (None, false)
            }
            Event::Text(_)
            | Event::CData(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::DocType(_)
            | Event::GeneralRef(_) => (None, false),
        };
        if let Some(tag) = tag {
            match tag.name().as_ref() {
                "table:table" => {
                    in_table += 1;
                    if in_table > MAX_PARTS {
                        return Err(too_many(name));
                    }
                    (rows, widest) = (0, 0);
                }
                "table:table-row" => {
                    row_repeats = repeats(tag, "table:number-rows-repeated");
                    rows = rows.saturating_add(row_repeats);
                    columns = 0;
                    filled = false;
                }
                "table:table-cell" | "table:covered-table-cell" => {
                    columns = columns.saturating_add(repeats(tag, "table:number-columns-repeated"));
                    let has_value = !empty
                        || tag
                            .attributes()
                            .flatten()
                            .any(|attribute| attribute.key.as_ref().starts_with("office:"));
                    if has_value {
                        filled = true;
                        widest = widest.max(columns);
                        if row_repeats.saturating_mul(columns) > MAX_CELLS.saturating_mul(4) {
                            return Err(too_many(name));
                        }
                    }
                }
                _ => {}
            }
        }
        buffer.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formula_without_a_value_stays_visible() {
        let mut grid = Grid::default();
        grid.put(4, 1, String::new(), Some("of:=A1+1"));
        assert_eq!(grid.rows[&4][&1], "=A1+1");
        assert_eq!((grid.remarks[0].number, grid.remarks.len()), (5, 1));
    }
}
