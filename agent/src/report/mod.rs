//! What flowproof writes for people and other programs: sheets and pages of a matrix, what differs between two, and the
//! report of what traffic showed. Nothing here prints.

pub mod cases;
pub mod fleet;
pub mod grid;
pub mod matrix_diff;
pub mod matrix_page;
pub mod matrix_sheet;
pub mod model;
pub mod recalled;
pub mod render;
pub mod ticket;
pub mod unexpected;
