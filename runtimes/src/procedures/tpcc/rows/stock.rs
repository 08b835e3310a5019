//! STOCK, in two rows: what each order changes, and what never changes.

use parsec_protocol::Value;

use super::super::super::fields::Fields;
use super::super::DISTRICTS;
use super::Row;

/// Bytes of S_DIST_xx and OL_DIST_INFO.
pub const DIST_BYTES: usize = 24;

/// What changes of a stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stock {
    /// S_QUANTITY.
    pub quantity: u16,
    /// S_YTD.
    pub ytd: u32,
    /// S_ORDER_CNT.
    pub orders: u32,
    /// S_REMOTE_CNT.
    pub remote: u32,
}

impl Stock {
    /// The stock of a row; `None` if it is none.
    #[must_use]
    pub fn decode(row: &[u8]) -> Option<Self> {
        Row::decode(row)
    }

    /// The row.
    #[must_use]
    pub fn encode(&self) -> Value {
        Value::concat([
            &self.quantity.to_be_bytes()[..],
            &self.ytd.to_be_bytes(),
            &self.orders.to_be_bytes(),
            &self.remote.to_be_bytes(),
        ])
    }
}

impl Row for Stock {
    fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Fields(row);
        let (quantity, ytd) = (fields.u16()?, fields.u32()?);
        let (orders, remote) = (fields.u32()?, fields.u32()?);
        fields.end()?;
        Some(Self { quantity, ytd, orders, remote })
    }
}

/// What never changes of a stock: S_DIST_01 to S_DIST_10, and then S_DATA.
#[derive(Debug, Clone, Copy)]
pub struct StockText<'a>(&'a [u8]);

impl<'a> StockText<'a> {
    /// The text of a row; `None` if it is none.
    #[must_use]
    pub fn decode(row: &'a [u8]) -> Option<Self> {
        (row.len() >= usize::from(DISTRICTS) * DIST_BYTES).then_some(Self(row))
    }

    /// S_DIST_xx of a district.
    pub(in super::super) fn district(&self, district: u8) -> [u8; DIST_BYTES] {
        let start = usize::from(district.saturating_sub(1)) * DIST_BYTES;
        let found = self.0.get(start..start + DIST_BYTES);
        found.and_then(|text| text.try_into().ok()).unwrap_or([b' '; DIST_BYTES])
    }
}
