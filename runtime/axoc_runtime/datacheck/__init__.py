"""`axoc data check`: what is wrong with the rows, before anything is paid for."""
