//! Cutting a file of CQL into its statements.

/// The statements of a text, without comments and empty lines.
pub fn statements(text: &str) -> Vec<String> {
    let mut statements = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '-' if !quoted && chars.peek() == Some(&'-') => while chars.next_if(|char| *char != '\n').is_some() {},
            ';' if !quoted => statements.push(String::new()),
            char => {
                quoted ^= char == '\'';
                statements.last_mut().expect("it begins with one").push(char);
            }
        }
    }
    let lines = |statement: String| {
        let lines: Vec<_> = statement.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines.join("\n")
    };
    statements.into_iter().map(lines).filter(|statement| !statement.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_end_statements_but_not_in_comments_and_quotes() {
        let text = "-- One; not two.\nCREATE a (\n  b int, -- it's b; yes\n  c text\n);\n\n\nINSERT 'x;--y';\n-- end";
        assert_eq!(statements(text), ["CREATE a (\n  b int,\n  c text\n)", "INSERT 'x;--y'"]);
        assert!(statements("").is_empty() && statements(" ;\n; -- x").is_empty());
    }
}
