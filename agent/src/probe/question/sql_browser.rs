//! SQL Server Resolution Protocol (MC-SQLR): asks one SQL Server Browser for its instances. The protocol has no
//! transaction number, so the socket's port is all that ties the answer to the question.

/// `CLNT_UCAST_EX` (MC-SQLR, section 2.2.2).
const CLNT_UCAST_EX: u8 = 0x03;
/// `SVR_RESP` (MC-SQLR, section 2.2.5).
const SVR_RESP: u8 = 0x05;

/// The question is a single byte.
pub(super) fn question() -> Vec<u8> {
    vec![CLNT_UCAST_EX]
}

/// `SVR_RESP`, whose length field (little endian) is that of what follows.
pub(super) fn answer(heard: &[u8]) -> Option<String> {
    let (&[kind, low, high], data) = heard.split_first_chunk()?;
    if kind != SVR_RESP || usize::from(u16::from_le_bytes([low, high])) != data.len() {
        return None;
    }
    // Names of instances are nobody's business here; how many there are tells that it is what it seems.
    let instances = data
        .windows(INSTANCE.len())
        .filter(|window| *window == INSTANCE)
        .count();
    Some(format!("{instances} instances"))
}

/// The key before each instance's name in the answer.
const INSTANCE: &[u8] = b"InstanceName;";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_the_one_of_mc_sqlr() {
        assert_eq!(question(), [3]);
    }

    #[test]
    fn only_a_whole_answer_counts() {
        let text = b"ServerName;SQL1;InstanceName;MSSQLSERVER;IsClustered;No;Version;16.0.1000.6;tcp;1433;;";
        let mut heard = vec![5, u8::try_from(text.len()).unwrap(), 0];
        heard.extend(text);
        assert_eq!(answer(&heard).as_deref(), Some("1 instances"));
        assert_eq!(answer(&heard[..heard.len() - 1]), None);
        assert_eq!(answer(&[5, 0, 0]).as_deref(), Some("0 instances"));
        assert_eq!(answer(&[4, 0, 0]), None);
        assert_eq!(answer(&[5]), None);
    }
}
