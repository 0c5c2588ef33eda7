"""Which rule scores which dataset: data source patterns to reward names.

The names of verl 0.9.1 (`default_compute_score`) and AReaL 1.0.4, and the usual ones of the Hugging
Face Hub. Every route gives the right verdict; a configuration names the reward itself with
`compat: true` to repeat the original's number.
"""

ROUTES: dict[str, str] = {
    # verl: gsm8k
    "openai/gsm8k": "gsm8k",
    "gsm8k": "gsm8k",
    # verl: math_reward
    "lighteval/MATH": "hendrycks_math",
    "DigitalLearningGmbH/MATH-lighteval": "hendrycks_math",
    "HuggingFaceH4/MATH-500": "hendrycks_math",
    # verl: math_dapo
    "math_dapo": "math_dapo",
    "math": "math_dapo",
    "math_dapo_reasoning": "math_dapo",
    "aime*": "math_dapo",
    # verl: prime_math
    "numina_aops_forum": "prime_math",
    "numina_synthetic_math": "prime_math",
    "numina_amc_aime": "prime_math",
    "numina_synthetic_amc": "prime_math",
    "numina_cn_k12": "prime_math",
    "numina_olympiads": "prime_math",
    # verl: geo3k
    "hiyouga/geometry3k": "geometry3k",
    # verl: search_r1_like_qa_em
    "searchR1_nq": "search_r1",
    "searchR1_triviaqa": "search_r1",
    "searchR1_popqa": "search_r1",
    "searchR1_hotpotqa": "search_r1",
    "searchR1_2wikimultihopqa": "search_r1",
    "searchR1_musique": "search_r1",
    "searchR1_bamboogle": "search_r1",
    # verl: prime_code, sandbox_fusion
    "codecontests": "code_stdio",
    "apps": "code_stdio",
    "codeforces": "code_stdio",
    "taco": "code_stdio",
    # programs whose tests call a function
    "*humaneval*": "code_python",
    "*HumanEval*": "code_python",
    "*mbpp*": "code_python",
    "*kodcode*": "code_python",
    "*KodCode*": "code_python",
    # programs that print, or functions whose cases are data
    "*livecodebench*": "code_stdio",
    "*LiveCodeBench*": "code_stdio",
    # verl: rlla, reached there by a custom function only
    "rlla*": "rlla",
    # AReaL finds these names anywhere in the dataset's path
    "*clevr_count_70k*": "clevr_count",
    "*geometry3k*": "geometry3k",
    # verl-omni
    "*MMK12*": "mmk12",
    "*mmk12*": "mmk12",
}
"""Exact sources win over patterns, longer patterns over shorter ones."""
