"""One module per trainer: what its configuration names, and what it calls.

Import the module of the trainer (`guerdon.trainers.verl`, `guerdon.trainers.trl`); none of them
imports the trainer. Shared by all:

- `plan`: what a user names as a reward;
- `scalar`: one reward behind a trainer's function, for trainers that hand over one sample and want
  one number. It is made of `micro_batch` (samples of concurrent calls are scored together) and
  `no_score` (what a sample without a score gets there);
- `messages`: prompts and completions with the images that trainers put into them;
- `component`: names to report under;
- `versions`: which versions of a trainer work.
"""
