//! An update of one's own, for tests that publish one.

/// The description of `Tool 2.1`, whose one file is `tool.exe` beside it.
pub const TOOL: &str = r#"
title = "Tool 2.1"
description = "Mends the tool."
vendor = "Example"
product = "Tool"
classification = "update"
installed = '<b.FileExists Path="C:\tool.exe"/>'
[[files]]
path = "tool.exe"
[installer]
kind = "command"
program = "tool.exe"
arguments = "/quiet"
"#;
