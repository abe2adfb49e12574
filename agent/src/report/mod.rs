//! What flowproof writes for people and other programs about a matrix: sheets and pages. Nothing here prints.

pub mod matrix_page;
pub mod matrix_sheet;
