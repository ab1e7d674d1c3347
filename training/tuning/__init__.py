"""Evaluations that train: low-shot, fine-tuning, and the papers' swept linear probe. Each is a method of the one loop.

Their knobs are a recipe's, so `zoo evaluate MODEL DATA --protocol finetune --schedule.epochs 100` turns one.
"""
