"""The report of an evaluation: one HTML file for a person, which needs nothing but a browser."""

from finqa_sft.evaluation.report.report import ReportedRun, report_html, write_report

__all__ = ["ReportedRun", "report_html", "write_report"]
