"""The rules of a formatter's contract."""

from __future__ import annotations

from finqa_sft.testing.contract import Rule


class FormatterRule(Rule):
    """What holds for every formatter."""

    PROMPT = (
        "a prompt is chat messages, the last of them the user's",
        "Return dicts with role and content; a system message can only be the first.",
    )
    COMPLETION = (
        "a completion is one assistant message with text in it",
        "Return [{'role': 'assistant', 'content': text}], and text that is never empty.",
    )
    ASKS = (
        "the prompt asks the question, whatever is left of the document",
        "Write question.text into prompt() as it is, and expect any block to be left out.",
    )
    SHOWS = (
        "the prompt shows the document that it is given, and nothing else of the page",
        "In prompt(), read the argument document and never question.document.blocks; with less of "
        "the document the prompt must not get longer.",
    )
    COMPLETE = (
        "the prompt shows every block of the document that it is given, and all values of tables",
        "Write out each paragraph whole, and each row of each table with its label, its headers "
        "and its cells; what is too long is cut before prompt() is called.",
    )
    HISTORY = (
        "the prompt of a later turn holds the questions before it",
        "Write question.history into prompt(): each turn's question as it is, and its answer.",
    )
    SHARED = (
        "the prompts of one document begin with the same text, up to the question",
        "Write nothing before question.text that differs from question to question: no id, no "
        "source, no number of turns.",
    )
    BLIND = (
        "the prompt is the same whatever the answer is",
        "In prompt(), read nothing of answer, program, derivation, executed_answer, scale, "
        "answer_type and evidence: they are not known when the model is asked.",
    )
    SAME = (
        "one question gives the same messages every time",
        "Keep nothing from call to call, make a new list in each, and draw nothing at random.",
    )
    UNCHANGED = (
        "a question is left as it was",
        "Use dataclasses.replace instead of changing it.",
    )
    PARSES = (
        "parse takes any text and gives a Prediction",
        "Return Prediction(text=completion.strip()) where nothing can be read; raise nothing.",
    )
    SILENT = (
        "a completion without text states nothing",
        "Return a Prediction whose answer and program are None.",
    )
    TELLS = (
        "another answer gives another completion",
        "Write the answer, the executed answer or the program into completion(), digits, sign "
        "and all.",
    )
    STATES = (
        "parse reads in a completion the answer or the program of its question",
        "Make parse() the inverse of completion(): whole numbers with their sign, whole phrases, "
        "with white space around the text or without.",
    )
    SCALE = (
        "parse reads no other scale than the question's",
        "Write question.scale into completion() and read it there, or leave Prediction.scale "
        "empty.",
    )
    CITES = (
        "parse reads the evidence that a completion cites, as it is written there",
        "Read what completion() makes of question.evidence back into Prediction.evidence, piece by "
        "piece and word for word.",
    )
    ENDS = (
        "a completion leaves the end of the turn to the chat template",
        "Take special tokens out of completion(); the template writes its own after the text.",
    )
    SUPERVISES = (
        "the tokens that are learnt are the completion and the end of its turn",
        "Write roles and text that the tokenizer's chat template renders as they are.",
    )
