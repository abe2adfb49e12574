//! What every reader makes of its document: blocks in the order of printing, each with its line, so that all later
//! stages know nothing of file formats.

/// A document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Document {
    /// The file's name.
    pub(super) name: String,
    /// The document's title, if the format has such a thing.
    pub(super) title: Option<String>,
    /// In the order of printing.
    pub(super) blocks: Vec<Block>,
}

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Block {
    /// A heading, or a line that looks like one.
    Heading(Line),
    /// Running text.
    Text(Line),
    /// An entry of a list.
    Item(Line),
    /// Rows that belong together.
    Table(Table),
}

/// One line of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1; in a sheet the row.
    pub(super) number: u32,
    /// What it says: without the marks of headings and lists, and without markup.
    pub(super) text: String,
    /// As printed, without control characters.
    pub(super) printed: String,
}

impl Line {
    /// A line without marks.
    pub(super) fn plain(number: u32, text: String) -> Self {
        Self {
            number,
            printed: text.clone(),
            text,
        }
    }
}

/// Rows of cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// Whether a row of the table is a row of the document. In plain text a row may run over several lines, so that a
    /// line without a port is more often the rest of a cell than a row.
    pub(super) strict: bool,
    /// In the order of printing.
    pub(super) rows: Vec<Row>,
    /// What the reader has to say of single rows, such as that a value was computed.
    pub(super) remarks: Vec<Line>,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Line on which it begins.
    pub(super) line: u32,
    /// Cells as printed; a cell may have several lines.
    pub(super) cells: Vec<String>,
    /// Whether all its cells are one cell that spans the row.
    pub(super) merged: bool,
    /// Whether it is known to be a row of its own, not the rest of the one above, as in Markdown.
    pub(super) whole: bool,
}

impl Row {
    /// A row without merged cells.
    pub(super) fn new(line: u32, cells: Vec<String>) -> Self {
        Self {
            line,
            cells,
            merged: false,
            whole: false,
        }
    }

    /// Whether no cell has a visible character.
    pub(super) fn is_blank(&self) -> bool {
        self.cells.iter().all(|cell| cell.trim().is_empty())
    }

    /// The cells that are not blank, with their columns.
    pub(super) fn filled(&self) -> impl Iterator<Item = (usize, &str)> {
        self.cells
            .iter()
            .enumerate()
            .map(|(column, cell)| (column, cell.trim()))
            .filter(|(_, cell)| !cell.is_empty())
    }
}

/// Saturates: documents are capped far below.
pub(super) fn line_number(index: usize) -> u32 {
    u32::try_from(index.saturating_add(1)).unwrap_or(u32::MAX)
}
