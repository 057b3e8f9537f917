"""The classroom: student versions of the problem sets, a sandbox for what students hand in, grades and feedback.

`python -m tools.classroom build` makes the student versions, `grade` grades a folder of submissions, `try` runs a
teacher's notebook with its own or another solution. The parts, from the ground up: `sets` reads a teacher's notebook,
`build` takes the solutions out of it, `server` is the program inside the sandbox, `sandbox` starts it and talks to it,
`remote` makes its objects look like ordinary ones, `grading` grades and `reports` writes what people read.
"""
